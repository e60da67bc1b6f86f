// Command spiffe is a workload as people write them with go-spiffe: it has its identity from the Workload API at
// SPIFFE_ENDPOINT_SOCKET, serves gRPC's health service by mutual TLS, and calls others'.
//
// It prints `svid ID SERIAL` whenever it is given a certificate, and `listening ADDRESS`. On standard input it takes lines
// `check ADDRESS ID`: it asks the server there, which must be ID, for its health, and prints `status STATUS` or `error REASON`.
package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffegrpc/grpccredentials"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// Of everything that is waited for.
const patience = 20 * time.Second

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx := context.Background()
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	source, err := workloadapi.NewX509Source(waiting)
	if err != nil {
		return err
	}
	defer source.Close()
	svid, err := show(source)
	if err != nil {
		return err
	}
	go func() {
		for range source.Updated() {
			if _, err := show(source); err != nil {
				fmt.Println("error", err)
			}
		}
	}()

	members := tlsconfig.AuthorizeMemberOf(svid.TrustDomain())
	server := grpc.NewServer(grpc.Creds(grpccredentials.MTLSServerCredentials(source, source, members)))
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go server.Serve(listener)
	fmt.Println("listening", listener.Addr())

	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) != 3 || words[0] != "check" {
			return fmt.Errorf("%q is no command", lines.Text())
		}
		if status, err := check(ctx, source, words[1], words[2]); err != nil {
			fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", " "))
		} else {
			fmt.Println("status", status)
		}
	}
	return lines.Err()
}

func show(source *workloadapi.X509Source) (spiffeid.ID, error) {
	svid, err := source.GetX509SVID()
	if err != nil {
		return spiffeid.ID{}, err
	}
	fmt.Printf("svid %s %x\n", svid.ID, svid.Certificates[0].SerialNumber.Bytes())
	return svid.ID, nil
}

func check(ctx context.Context, source *workloadapi.X509Source, address, id string) (string, error) {
	expected, err := spiffeid.FromString(id)
	if err != nil {
		return "", err
	}
	credentials := grpccredentials.MTLSClientCredentials(source, source, tlsconfig.AuthorizeID(expected))
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials))
	if err != nil {
		return "", err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err := grpc_health_v1.NewHealthClient(connection).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return "", err
	}
	return answer.Status.String(), nil
}
