// gRPC's own cases of interoperability, one after the other in one process, for tests through the mesh: each by a connection of its own.
//
//	interop HOST:PORT
//
// Ends with an error at the first case that does not hold.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

// A case of the specification: grpc/doc/interop-test-descriptions.md.
type testCase struct {
	name string
	run  func(context.Context, *grpc.ClientConn)
}

// A case that needs the service alone.
func of(name string, run func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption)) testCase {
	return testCase{name, func(ctx context.Context, conn *grpc.ClientConn) { run(ctx, testgrpc.NewTestServiceClient(conn)) }}
}

var cases = []testCase{
	of("empty_unary", interop.DoEmptyUnaryCall),
	of("large_unary", interop.DoLargeUnaryCall),
	of("client_streaming", interop.DoClientStreaming),
	of("server_streaming", interop.DoServerStreaming),
	of("ping_pong", interop.DoPingPong),
	of("empty_stream", interop.DoEmptyStream),
	of("timeout_on_sleeping_server", interop.DoTimeoutOnSleepingServer),
	of("cancel_after_begin", interop.DoCancelAfterBegin),
	of("cancel_after_first_response", interop.DoCancelAfterFirstResponse),
	of("status_code_and_message", interop.DoStatusCodeAndMessage),
	of("special_status_message", interop.DoSpecialStatusMessage),
	of("custom_metadata", interop.DoCustomMetadata),
	{"unimplemented_method", interop.DoUnimplementedMethod},
	{"unimplemented_service", func(ctx context.Context, conn *grpc.ClientConn) {
		interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(conn))
	}},
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: interop HOST:PORT")
		os.Exit(2)
	}
	for _, it := range cases {
		if err := run(os.Args[1], it); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", it.name, err)
			os.Exit(1)
		}
		fmt.Printf("%s holds\n", it.name)
	}
}

// The cases end the process when they do not hold.
func run(server string, it testCase) error {
	conn, err := grpc.NewClient(server, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	it.run(ctx, conn)
	return nil
}
