# Two requests over one connection.
package require tls
set s [tls::socket [lindex $argv 0] [lindex $argv 1]]
fconfigure $s -translation binary -buffering full
foreach path {/one /two} {
    puts -nonewline $s "GET $path HTTP/1.1\r\nHost: a\r\n\r\n"
    flush $s
    set size 0
    while {[gets $s line] >= 0 && [string trim $line] ne ""} {
        regexp -nocase {content-length: *(\d+)} $line -> size
    }
    read $s $size
}
close $s
