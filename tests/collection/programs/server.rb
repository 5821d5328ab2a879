# Answers HTTP requests over TLS: server.rb HOST PORT DIR.
require "webrick/https"
host, port, dir = ARGV
server = WEBrick::HTTPServer.new(
  BindAddress: host, Port: port.to_i, SSLEnable: true,
  SSLCertificate: OpenSSL::X509::Certificate.new(File.read("#{dir}/cert.pem")),
  SSLPrivateKey: OpenSSL::PKey.read(File.read("#{dir}/key.pem")),
)
server.mount_proc("/") { |_, answer| answer.body = "hello" }
server.start
