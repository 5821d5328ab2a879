# Gets URLs one after the other over one connection.
use LWP::UserAgent;
my $agent = LWP::UserAgent->new(keep_alive => 1, ssl_opts => { verify_hostname => 0, SSL_verify_mode => 0 });
$agent->get($_) for @ARGV;
