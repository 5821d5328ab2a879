// What the scenarios do.
package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"io/ioutil"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

var sizes = []int{1, 100, 5000, 70000, 3, 1 << 20}

// wrap lets a scenario put something between TLS and the socket.
type wrap func(net.Conn) net.Conn

func onePair(name, network, address string, w wrap) {
	client, server := tcpPair(network, address)
	if w != nil {
		client, server = w(client), w(server)
	}
	c := newEnd(name, "client", "tcp", tls.Client(client, clientConfig))
	s := newEnd(name, "server", "tcp", tls.Server(server, serverConfig))
	chat(c, s, sizes)
	c.finish()
	s.finish()
}

func unix() {
	dir, err := ioutil.TempDir("", "gotls")
	must(err)
	defer os.RemoveAll(dir)
	client, server := tcpPair("unix", filepath.Join(dir, "socket"))
	c := newEnd("unix", "client", "unix", tls.Client(client, clientConfig))
	s := newEnd("unix", "server", "unix", tls.Server(server, serverConfig))
	chat(c, s, sizes)
	c.finish()
	s.finish()
}

func pipe() {
	client, server := net.Pipe()
	c := newEnd("pipe", "client", "mem", tls.Client(client, clientConfig))
	s := newEnd("pipe", "server", "mem", tls.Server(server, serverConfig))
	chat(c, s, sizes)
	// Nobody reads what closing writes.
	go io.Copy(ioutil.Discard, client)
	go io.Copy(ioutil.Discard, server)
	c.finish()
	s.finish()
}

// first holds a conn as its first field, second as its second.
type first struct {
	net.Conn
	count int
}

type second struct {
	header *bytes.Buffer
	net.Conn
}

func wrapped() {
	onePair("first", "tcp", "127.0.0.1:0", func(c net.Conn) net.Conn { return &first{Conn: c} })
	onePair("second", "tcp", "127.0.0.1:0", func(c net.Conn) net.Conn { return &second{Conn: c} })
	onePair("both", "tcp", "127.0.0.1:0", func(c net.Conn) net.Conn {
		return &first{Conn: &second{Conn: &first{Conn: c}}}
	})
}

// tunnel runs TLS inside TLS.
func tunnel() {
	client, server := tcpPair("tcp", "127.0.0.1:0")
	outerClient := tls.Client(client, clientConfig)
	outerServer := tls.Server(server, serverConfig)
	var group sync.WaitGroup
	group.Add(1)
	go func() {
		defer group.Done()
		must(outerServer.Handshake())
	}()
	must(outerClient.Handshake())
	group.Wait()
	c := newEnd("tunnel", "client", "tls", tls.Client(outerClient, clientConfig))
	s := newEnd("tunnel", "server", "tls", tls.Server(outerServer, serverConfig))
	chat(c, s, []int{1, 100, 5000, 70000})
	c.finish()
	s.finish()
}

func many() {
	var group sync.WaitGroup
	for i := 0; i < 200; i++ {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			client, server := tcpPair("tcp", "127.0.0.1:0")
			name := fmt.Sprintf("many-%d", i)
			c := newEnd(name, "client", "tcp", tls.Client(client, clientConfig))
			s := newEnd(name, "server", "tcp", tls.Server(server, serverConfig))
			chat(c, s, []int{100 + i, 3000 + i, 20 + i})
			c.finish()
			s.finish()
		}(i)
	}
	group.Wait()
}

// deep makes the stack grow.
//
//go:noinline
func deep(n int) int {
	var room [1024]byte
	if n == 0 {
		return len(room)
	}
	room[n%1024] = byte(n)
	return deep(n-1) + int(room[n%1024])
}

// readSmall reads into a buffer on the stack, which moves while the call waits.
//
//go:noinline
func readSmall(e *end) int {
	var b [300]byte
	n, err := e.Conn.Read(b[:])
	// A copy: what is handed on further would not stay on the stack.
	e.book.In.add(append([]byte(nil), b[:n]...))
	must(err)
	return n
}

// stack lets stacks grow inside of Read, and shrink while it waits.
func stack() {
	debug.SetGCPercent(1)
	client, server := tcpPair("tcp", "127.0.0.1:0")
	c := newEnd("stack", "client", "tcp", tls.Client(client, clientConfig))
	s := newEnd("stack", "server", "tcp", tls.Server(server, serverConfig))
	chat(c, s, []int{100})
	// Others read and write from here on.
	c.book.Goid, s.book.Goid = 0, 0
	for i := 0; i < 2000; i++ {
		done := make(chan bool)
		go func() {
			if i%2 == 0 {
				deep(60)
			}
			for n := 0; n < 250; {
				n += readSmall(s)
			}
			done <- true
		}()
		if i%2 == 0 {
			runtime.Gosched()
			runtime.GC()
			runtime.GC()
		}
		c.write(pattern(i, 250))
		<-done
	}
	c.finish()
	s.finish()
}

// waiting lets reads of each kind wait, and gives what has to be done then.
func waiting() func() {
	debug.SetGCPercent(1)
	type pair struct{ client, server *end }
	var pairs []pair
	done := make(chan bool)
	for i := 0; i < 60; i++ {
		client, server := tcpPair("tcp", "127.0.0.1:0")
		name := fmt.Sprintf("waiting-%d", i)
		c := newEnd(name, "client", "tcp", tls.Client(client, clientConfig))
		s := newEnd(name, "server", "tcp", tls.Server(server, serverConfig))
		chat(c, s, []int{100})
		c.book.Out, c.book.In, c.book.Goid = Sum{}, Sum{}, 0
		s.book.Out, s.book.In, s.book.Goid = Sum{}, Sum{}, 0
		pairs = append(pairs, pair{c, s})
		go func(i int) {
			switch i % 3 {
			case 0:
				s.read(make([]byte, 1))
				s.read(make([]byte, 249))
			case 1:
				s.read(make([]byte, 250))
			default:
				// The stack is large, and shrinks while the read waits.
				deep(60)
				for n := 0; n < 250; {
					n += readSmall(s)
				}
			}
			done <- true
		}(i)
	}
	return func() {
		runtime.GC()
		runtime.GC()
		for i, p := range pairs {
			p.client.write(pattern(i, 250))
			<-done
		}
		for i, p := range pairs {
			chat(p.client, p.server, []int{50 + i})
			p.client.finish()
			p.server.finish()
		}
	}
}

// bad panics in the middle of a call.
type bad struct {
	net.Conn
	reads int
}

func (b *bad) Read(p []byte) (int, error) {
	b.reads++
	if b.reads > 10 && b.reads%2 == 0 {
		panic("on purpose")
	}
	return b.Conn.Read(p)
}

// panics leaves Read by a panic and by Goexit, again and again, and then goes on.
func panics() {
	for i := 0; i < 50; i++ {
		client, server := tcpPair("tcp", "127.0.0.1:0")
		c := newEnd("panic", "client", "tcp", tls.Client(client, clientConfig))
		s := newEnd("panic", "server", "tcp", tls.Server(&bad{Conn: server}, serverConfig))
		var group sync.WaitGroup
		group.Add(1)
		go func() {
			defer group.Done()
			defer func() { recover() }()
			for {
				s.read(make([]byte, 10))
			}
		}()
		for n := 0; n < 10; n++ {
			c.write(pattern(n, 10))
		}
		time.Sleep(time.Millisecond)
		c.Close()
		group.Wait()
		client.Close()
		server.Close()
		c.abandon()
		s.abandon()
	}
	onePair("after", "tcp", "127.0.0.1:0", nil)
}

// reuse makes connections one after the other, so that memory of old ones is used again.
func reuse() {
	for i := 0; i < 300; i++ {
		client, server := tcpPair("tcp", "127.0.0.1:0")
		name := fmt.Sprintf("reuse-%d", i)
		c := newEnd(name, "client", "tcp", tls.Client(client, clientConfig))
		s := newEnd(name, "server", "tcp", tls.Server(server, serverConfig))
		chat(c, s, []int{50 + i})
		if i%2 == 0 {
			c.finish()
			s.finish()
		} else {
			// Closed below TLS, and left to the garbage collector.
			client.Close()
			server.Close()
			c.abandon()
			s.abandon()
		}
		if i%10 == 0 {
			runtime.GC()
		}
	}
}

// busy goes on until it is told to stop, and checks each byte itself.
func busy() {
	stop := make(chan bool)
	go func() {
		input.ReadString('\n')
		close(stop)
	}()
	var group sync.WaitGroup
	for i := 0; i < 8; i++ {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			client, server := tcpPair("tcp", "127.0.0.1:0")
			c := tls.Client(client, clientConfig)
			s := tls.Server(server, serverConfig)
			go io.Copy(s, s)
			want := pattern(i, 1000)
			got := make([]byte, len(want))
			for {
				select {
				case <-stop:
					c.Close()
					return
				default:
				}
				_, err := c.Write(want)
				must(err)
				_, err = io.ReadFull(c, got)
				must(err)
				if !bytes.Equal(got, want) {
					panic("other bytes came back")
				}
				deep(i)
			}
		}(i)
	}
	group.Wait()
	fmt.Println("still right")
}

// web sends large bodies both ways and says nothing of the bytes that HTTP adds.
func web(http2 bool) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	body := pattern(7, 512<<10)
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		got, err := ioutil.ReadAll(r.Body)
		must(err)
		w.Write(got)
	})
	server := &http.Server{Handler: mux}
	if !http2 {
		server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	}
	go server.ServeTLS(listener, os.Getenv("LAB_CERT"), os.Getenv("LAB_KEY"))
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, ServerName: serverName},
		ForceAttemptHTTP2: http2,
	}
	client := &http.Client{Transport: transport}
	var group sync.WaitGroup
	for i := 0; i < 4; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for n := 0; n < 2; n++ {
				resp, err := client.Post("https://"+listener.Addr().String()+"/x", "text/plain", bytes.NewReader(body))
				must(err)
				got, err := ioutil.ReadAll(resp.Body)
				must(err)
				resp.Body.Close()
				if !bytes.Equal(got, body) {
					panic("the body is not what was sent")
				}
			}
		}()
	}
	group.Wait()
	transport.CloseIdleConnections()
	server.Close()
	time.Sleep(50 * time.Millisecond)
}
