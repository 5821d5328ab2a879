; Two requests over one connection.
#lang racket/base
(require openssl)
(define arguments (current-command-line-arguments))
(define-values (in out)
  (ssl-connect (vector-ref arguments 0) (string->number (vector-ref arguments 1)) 'auto))
(for ([path '("/one" "/two")])
  (write-string (string-append "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n") out)
  (flush-output out)
  (let loop ([size 0])
    (define line (read-line in 'return-linefeed))
    (define found (regexp-match #rx"^Content-Length: ([0-9]+)" line))
    (cond [(equal? line "") (void (read-bytes size in))]
          [else (loop (if found (string->number (cadr found)) size))])))
