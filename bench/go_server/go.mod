module tlssniff/bench

go 1.18
