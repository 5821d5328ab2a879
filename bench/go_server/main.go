// An HTTPS server on crypto/tls: HTTP/1.1 with keep-alive, /small of 128 bytes.
//
//	go_server ADDRESS CERTIFICATE KEY
package main

import (
	"bytes"
	"crypto/tls"
	"log"
	"net/http"
	"os"
)

func main() {
	small := bytes.Repeat([]byte("~"), 128)
	http.HandleFunc("/small", func(w http.ResponseWriter, r *http.Request) { w.Write(small) })
	server := &http.Server{
		Addr: os.Args[1],
		// HTTP/2 would put many requests into one call.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	log.Fatal(server.ListenAndServeTLS(os.Args[2], os.Args[3]))
}
