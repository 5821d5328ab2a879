# Sends back lines: server.pl HOST PORT DIR.
use IO::Socket::SSL;
my ($host, $port, $dir) = @ARGV;
my $server = IO::Socket::SSL->new(LocalAddr => $host, LocalPort => $port, Listen => 5, ReuseAddr => 1,
    SSL_cert_file => "$dir/cert.pem", SSL_key_file => "$dir/key.pem") or die "listen: $!";
while (1) {
    my $conn = $server->accept or next;
    while (my $line = <$conn>) { print $conn $line }
}
