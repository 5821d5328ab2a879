// Uses crypto/tls in one way or another, and prints what each end passed and received:
// gotls SCENARIO. With ODD_GATE set it says "ready" and waits for a line first.
package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"net"
	"os"
	"runtime"
	"sort"
	"sync"
)

// Sum is a stream's length and CRC-32.
type Sum struct {
	Len uint64 `json:"len"`
	CRC uint32 `json:"crc"`
}

func (s *Sum) add(b []byte) {
	s.Len += uint64(len(b))
	s.CRC = crc32.Update(s.CRC, crc32.IEEETable, b)
}

// Book is what one end of a connection did.
type Book struct {
	Name      string `json:"name"`
	Pid       int    `json:"pid"`
	Role      string `json:"role"`
	Transport string `json:"transport"`
	Local     string `json:"local"`
	Remote    string `json:"remote"`
	Version   string `json:"version"`
	SNI       string `json:"sni"`
	ALPN      string `json:"alpn"`
	Out       Sum    `json:"out"`
	In        Sum    `json:"in"`
	Retries   int    `json:"retries"`
	Goid      uint64 `json:"goid,omitempty"`
}

const (
	serverName = "go.lab.test"
	protocol   = "go/1.0"
)

var (
	serverConfig *tls.Config
	clientConfig = &tls.Config{
		InsecureSkipVerify: true,
		ServerName:         serverName,
		NextProtos:         []string{protocol},
	}
	output sync.Mutex
	input  = bufio.NewReader(os.Stdin)
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// end is a connection that keeps its book.
type end struct {
	*tls.Conn
	book Book
}

func newEnd(name, role, transport string, conn *tls.Conn) *end {
	e := &end{Conn: conn}
	e.book = Book{Name: name, Pid: os.Getpid(), Role: role, Transport: transport}
	if transport == "tcp" {
		e.book.Local = conn.LocalAddr().String()
		e.book.Remote = conn.RemoteAddr().String()
	}
	return e
}

func (e *end) write(b []byte) {
	n, err := e.Conn.Write(b)
	e.book.Out.add(b[:n])
	must(err)
}

// read fills b.
func (e *end) read(b []byte) {
	for len(b) > 0 {
		n, err := e.Conn.Read(b)
		e.book.In.add(b[:n])
		b = b[n:]
		must(err)
	}
}

func (e *end) finish() {
	e.Close()
	e.abandon()
}

// abandon tells of it without closing it.
func (e *end) abandon() {
	e.book.Version, e.book.ALPN, e.book.SNI = "1.3", protocol, serverName
	line, err := json.Marshal(e.book)
	must(err)
	output.Lock()
	defer output.Unlock()
	fmt.Println(string(line))
}

// tcpPair gives both ends of a connection over the loopback.
func tcpPair(network, address string) (net.Conn, net.Conn) {
	listener, err := net.Listen(network, address)
	must(err)
	defer listener.Close()
	client, err := net.Dial(network, listener.Addr().String())
	must(err)
	server, err := listener.Accept()
	must(err)
	return client, server
}

// pattern makes bytes of which no two places are alike.
func pattern(seed, n int) []byte {
	b := make([]byte, 0, n+32)
	for len(b) < n {
		b = append(b, fmt.Sprintf("%06d %015x\n", seed, len(b))...)
	}
	return b[:n]
}

// goid is the number of this goroutine, which the runtime only says in stack traces.
func goid() uint64 {
	b := make([]byte, 100)
	b = b[:runtime.Stack(b, false)]
	var n uint64
	_, err := fmt.Sscanf(string(b), "goroutine %d ", &n)
	must(err)
	return n
}

// chat lets both ends write and read, at the same time.
func chat(client, server *end, sizes []int) {
	var group sync.WaitGroup
	group.Add(2)
	go func() {
		defer group.Done()
		server.book.Goid = goid()
		for i, n := range sizes {
			b := make([]byte, n)
			server.read(b)
			server.write(pattern(1000+i, n/2+1))
		}
	}()
	go func() {
		defer group.Done()
		client.book.Goid = goid()
		for i, n := range sizes {
			client.write(pattern(i, n))
			client.read(make([]byte, n/2+1))
		}
	}()
	group.Wait()
}

var scenarios = map[string]func(){
	"plain":   func() { onePair("plain", "tcp", "127.0.0.1:0", nil) },
	"ipv6":    func() { onePair("ipv6", "tcp", "[::1]:0", nil) },
	"unix":    unix,
	"pipe":    pipe,
	"wrapped": wrapped,
	"tunnel":  tunnel,
	"many":    many,
	"stack":   stack,
	"panic":   panics,
	"reuse":   reuse,
	"busy":    busy,
	"http1":   func() { web(false) },
	"http2":   func() { web(true) },
}

func main() {
	cert, err := tls.LoadX509KeyPair(os.Getenv("LAB_CERT"), os.Getenv("LAB_KEY"))
	must(err)
	serverConfig = &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{protocol}}
	if len(os.Args) == 2 && os.Args[1] == "waiting" {
		scenarios["waiting"] = waiting()
	}
	if os.Getenv("ODD_GATE") != "" {
		fmt.Println("ready")
		input.ReadString('\n')
	}
	if len(os.Args) == 2 {
		if scenario := scenarios[os.Args[1]]; scenario != nil {
			scenario()
			return
		}
	}
	names := make([]string, 0, len(scenarios))
	for name := range scenarios {
		names = append(names, name)
	}
	sort.Strings(names)
	fmt.Fprintln(os.Stderr, "gotls SCENARIO, one of", names)
	os.Exit(2)
}
