// A web server and a web client as people write them with Go's own library, for tests through the mesh.
//
//	web server                  serves HTTP/1.1 and HTTP/2 in clear text on :8080, :8081 and :8082, gRPC on :9000
//	web client URL [URL2]       checks what such a server promises, HTTP/1.1 at URL and HTTP/2 at URL2
//	web idle                    does nothing, so that other programs can be run beside it
package main

import (
	"fmt"
	"os"
	"time"
)

func main() {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "server":
		serve()
	case len(os.Args) == 4 && os.Args[1] == "client":
		check(os.Args[2], os.Args[3])
	case len(os.Args) == 2 && os.Args[1] == "idle":
		for {
			time.Sleep(time.Hour)
		}
	default:
		fmt.Fprintln(os.Stderr, "usage: web server | web client URL URL2 | web idle")
		os.Exit(2)
	}
}
