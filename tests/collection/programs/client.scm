;; Gets URLs one after the other.
(use-modules (web client) (web uri))
(x509-certificate-directory "/etc/ssl/certs")
(for-each (lambda (url) (http-get url #:verify-certificate? #f)) (cdr (command-line)))
