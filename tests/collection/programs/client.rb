# Gets URLs one after the other over one connection.
require "net/http"
first = URI(ARGV[0])
Net::HTTP.start(first.host, first.port, use_ssl: true, verify_mode: OpenSSL::SSL::VERIFY_NONE) do |http|
  ARGV.each { |url| http.get(URI(url).path) }
end
