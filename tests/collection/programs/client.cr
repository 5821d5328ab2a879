# Gets URLs one after the other over one connection.
require "http/client"

first = URI.parse(ARGV[0])
context = OpenSSL::SSL::Context::Client.insecure
client = HTTP::Client.new(first.host.not_nil!, first.port, tls: context)
ARGV.each { |url| client.get(URI.parse(url).path).body }
