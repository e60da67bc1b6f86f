package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
)

// echo tells what the server saw of a request.
type echo struct {
	Proto, Method, Host, Path, Body string
	Length                          int64
	Headers                         http.Header
}

func serve() {
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		length, err := io.Copy(sum, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(echo{r.Proto, r.Method, r.Host, r.URL.Path, hex.EncodeToString(sum.Sum(nil)), length, r.Header})
	})
	mux.HandleFunc("/trailers", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Count")
		for range 3 {
			_, _ = io.WriteString(w, "piece\n")
			w.(http.Flusher).Flush()
		}
		w.Header().Set("X-Count", "3")
	})
	mux.HandleFunc("/large", func(w http.ResponseWriter, r *http.Request) {
		count, _ := strconv.ParseInt(r.URL.Query().Get("bytes"), 10, 64)
		_, _ = io.CopyN(w, zeros{}, count)
	})
	// Every piece comes back before the next is sent.
	mux.HandleFunc("/both-ways", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		piece := make([]byte, 1024)
		for {
			n, err := r.Body.Read(piece)
			_, _ = w.Write(piece[:n])
			w.(http.Flusher).Flush()
			if err != nil {
				return
			}
		}
	})
	upgrader := websocket.Upgrader{}
	mux.HandleFunc("/socket", func(w http.ResponseWriter, r *http.Request) {
		socket, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer socket.Close()
		for {
			kind, message, err := socket.ReadMessage()
			if err != nil || socket.WriteMessage(kind, message) != nil {
				return
			}
		}
	})
	for _, address := range []string{":8081", ":8082"} {
		go listen(address, mux)
	}
	go calls(":9000")
	listen(":8080", mux)
}

func listen(address string, handler http.Handler) {
	server := &http.Server{Addr: address, Handler: handler, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	log.Fatal(server.ListenAndServe())
}

func calls(address string) {
	socket, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	reflection.Register(server)
	log.Fatal(server.Serve(socket))
}

type zeros struct{}

func (zeros) Read(into []byte) (int, error) {
	clear(into)
	return len(into), nil
}
