// Command promlint reads metrics as text and says what promtool's `check metrics` says of them: it is promtool's own
// parser and linter, without the service discovery of every cloud that promtool is built with.
//
// Usage: promlint < metrics. It exits with 3 when there are findings and with 1 when the text cannot be read, as
// promtool does.
package main

import (
	"fmt"
	"os"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

func main() {
	problems, err := promlint.New(os.Stdin).Lint()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error while linting:", err)
		os.Exit(1)
	}
	for _, problem := range problems {
		fmt.Fprintln(os.Stderr, problem.Metric, problem.Text)
	}
	if len(problems) > 0 {
		os.Exit(3)
	}
}
