package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// check runs every check and prints a line for each; it exits with 1 if one fails.
func check(text, streams string) {
	one := client(func(p *http.Protocols) { p.SetHTTP1(true) })
	two := client(func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) })
	failed := false
	for _, it := range []struct {
		name string
		run  func() error
	}{
		{"many requests on one connection", func() error { return many(one, text, "HTTP/1.1") }},
		{"many requests at a time", func() error { return atOnce(one, text) }},
		{"a body of unknown length", func() error { return upload(one, text) }},
		{"a body that waits to be asked for", func() error { return expect(one, text) }},
		{"trailers", func() error { return trailers(one, text) }},
		{"a large answer", func() error { return large(one, text) }},
		{"a WebSocket", func() error { return socket(text) }},
		{"many requests over HTTP/2", func() error { return many(two, streams, "HTTP/2.0") }},
		{"many streams at a time", func() error { return atOnce(two, streams) }},
		{"a body of unknown length over HTTP/2", func() error { return upload(two, streams) }},
		{"trailers over HTTP/2", func() error { return trailers(two, streams) }},
		{"a large answer over HTTP/2", func() error { return large(two, streams) }},
		{"a stream that goes both ways", func() error { return bothWays(two, streams) }},
	} {
		if err := it.run(); err != nil {
			failed = true
			fmt.Printf("failed: %s: %v\n", it.name, err)
		} else {
			fmt.Printf("ok: %s\n", it.name)
		}
	}
	if failed {
		os.Exit(1)
	}
}

func client(protocols func(*http.Protocols)) *http.Client {
	transport := &http.Transport{Protocols: new(http.Protocols), ExpectContinueTimeout: 5 * time.Second}
	protocols(transport.Protocols)
	return &http.Client{Transport: transport, Timeout: 60 * time.Second}
}

func told(response *http.Response) (echo, error) {
	defer response.Body.Close()
	var seen echo
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body)
		return seen, fmt.Errorf("%s: %s", response.Status, text)
	}
	err := json.NewDecoder(response.Body).Decode(&seen)
	_, _ = io.Copy(io.Discard, response.Body)
	return seen, err
}

func many(client *http.Client, url, proto string) error {
	for range 100 {
		response, err := client.Get(url + "/echo")
		if err != nil {
			return err
		}
		seen, err := told(response)
		if err != nil {
			return err
		}
		if seen.Proto != proto || response.Proto != proto {
			return fmt.Errorf("the server saw %s and the client %s, not %s", seen.Proto, response.Proto, proto)
		}
	}
	return nil
}

func atOnce(client *http.Client, url string) error {
	var all sync.WaitGroup
	results := make(chan error, 200)
	for range 200 {
		all.Go(func() {
			response, err := client.Get(url + "/echo")
			if err == nil {
				_, err = told(response)
			}
			results <- err
		})
	}
	all.Wait()
	close(results)
	for err := range results {
		if err != nil {
			return err
		}
	}
	return nil
}

func sent(client *http.Client, request *http.Request, body []byte) error {
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	seen, err := told(response)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	if seen.Body != hex.EncodeToString(sum[:]) {
		return fmt.Errorf("%d bytes arrived of %d, or others", seen.Length, len(body))
	}
	return nil
}

func upload(client *http.Client, url string) error {
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	// A reader of no known type has no known length.
	request, err := http.NewRequest(http.MethodPost, url+"/echo", io.MultiReader(bytes.NewReader(body)))
	if err != nil {
		return err
	}
	return sent(client, request, body)
}

func expect(client *http.Client, url string) error {
	body := bytes.Repeat([]byte("x"), 100_000)
	request, err := http.NewRequest(http.MethodPost, url+"/echo", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Expect", "100-continue")
	return sent(client, request, body)
}

func trailers(client *http.Client, url string) error {
	response, err := client.Get(url + "/trailers")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if string(body) != "piece\npiece\npiece\n" || response.Trailer.Get("X-Count") != "3" {
		return fmt.Errorf("body %q, trailers %v", body, response.Trailer)
	}
	return nil
}

func large(client *http.Client, url string) error {
	const size = 16 << 20
	response, err := client.Get(fmt.Sprintf("%s/large?bytes=%d", url, size))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if count, err := io.Copy(io.Discard, response.Body); err != nil || count != size {
		return fmt.Errorf("%d bytes of %d: %v", count, size, err)
	}
	return nil
}

func socket(url string) error {
	socket, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(url, "http")+"/socket", nil)
	if err != nil {
		return err
	}
	defer socket.Close()
	for nth := range 100 {
		message := strings.Repeat(fmt.Sprint(nth), 1+nth*10)
		if err := socket.WriteMessage(websocket.TextMessage, []byte(message)); err != nil {
			return err
		}
		_, answer, err := socket.ReadMessage()
		if err != nil {
			return err
		}
		if string(answer) != message {
			return fmt.Errorf("message %d came back as %q", nth, answer)
		}
	}
	closing := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	if err := socket.WriteMessage(websocket.CloseMessage, closing); err != nil {
		return err
	}
	if _, _, err = socket.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		return fmt.Errorf("the closing was not answered: %v", err)
	}
	return nil
}

func bothWays(client *http.Client, url string) error {
	reader, writer := io.Pipe()
	context, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(context, http.MethodPost, url+"/both-ways", reader)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	for nth := range 20 {
		piece := fmt.Sprintf("piece %d;", nth)
		if _, err := io.WriteString(writer, piece); err != nil {
			return err
		}
		answer := make([]byte, len(piece))
		if _, err := io.ReadFull(response.Body, answer); err != nil || string(answer) != piece {
			return fmt.Errorf("piece %d came back as %q: %v", nth, answer, err)
		}
	}
	writer.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}
