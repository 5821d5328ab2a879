complete -c tlssniff -s p -l pid -d 'Only these processes; several with commas, spaces or by repeating -p' -r
complete -c tlssniff -s u -l uid -d 'Only processes of this user, by name or number' -r -f -a "(__fish_complete_users)"
complete -c tlssniff -l comm -d 'Only processes whose command name matches this pattern (*, ?, [...])' -r
complete -c tlssniff -l exe -d 'Only processes that run this executable' -r -F
complete -c tlssniff -l cgroup -d 'Only processes of this cgroup and of those below it, by its path in the unified hierarchy' -r -F
complete -c tlssniff -l container -d 'Only processes of this container, by the beginning of its id' -r
complete -c tlssniff -l run-as -d 'Run the command as this user [default: $SUDO_USER under sudo, else yourself]' -r -f -a "(__fish_complete_users)"
complete -c tlssniff -s s -l snapshot-length -d 'Keep at most this many bytes of each read or write; 0 keeps everything' -r
complete -c tlssniff -s Q -l direction -d 'Only what the programs read (in) or write (out)' -r -f -a "in\t''
out\t''
inout\t''"
complete -c tlssniff -l redact -d 'Hide what Authorization, Cookie, Set-Cookie and other headers with credentials say, and the headers, JSON keys, parameters and parts of forms of these names, in every output; lengths stay' -r
complete -c tlssniff -s c -l count -d 'Stop after this many events have been shown or written' -r
complete -c tlssniff -l duration -d 'Stop after this time: 10, 1.5s, 200ms, 2m, 1h' -r
complete -c tlssniff -s F -l filter-file -d 'Read the filter expression from this file' -r -F
complete -c tlssniff -s Y -l filter -d 'The filter expression as one argument' -r
complete -c tlssniff -l format -d 'Format of the output [default: text]' -r -f -a "text\t''
json\t''"
complete -c tlssniff -l color -d 'Colour: auto is for terminals only and heeds $NO_COLOR and $CLICOLOR_FORCE' -r -f -a "auto\t''
always\t''
never\t''"
complete -c tlssniff -s o -l output -d 'Text or JSON to this file instead of standard output' -r -F
complete -c tlssniff -l history -d 'With --tui: keep the newest N exchanges, of at most SIZE bytes together [default: 10000,64M]' -r
complete -c tlssniff -s w -l write-file -d 'Save as pcapng for Wireshark; `-` is standard output' -r -F
complete -c tlssniff -l framing -d 'How plaintext stands in the file: in TLS records of a NULL cipher, or bare in TCP [default: tls]' -r -f -a "tls\t''
raw\t''"
complete -c tlssniff -s C -d 'Begin a new file after this size, in millions of bytes or with k, M or G (2^10, 2^20, 2^30)' -r
complete -c tlssniff -s G -d 'Begin a new file after this many seconds; the name may hold strftime(3) formats' -r
complete -c tlssniff -s W -d 'With -C: write these many files in turn, over and over; with -G alone: stop after so many' -r
complete -c tlssniff -s z -d 'With -C or -G: run this program with the name of each finished file' -r
complete -c tlssniff -l listen -d 'Serve the capture as pcapng to readers on this port, such as wireshark -k -i TCP@127.0.0.1:PORT' -r
complete -c tlssniff -l har -d 'Save HTTP exchanges as HAR, for browsers and Postman' -r -F
complete -c tlssniff -s r -l read-file -d 'Read a file that tlssniff has written (`-`: standard input); needs no privilege' -r -F
complete -c tlssniff -s B -l buffer-size -d 'Size of the ring buffer in KiB, rounded up to a power of two, at least 512' -r
complete -c tlssniff -s Z -l relinquish-privileges -d 'Become this user once everything is attached and the files are open' -r -f -a "(__fish_complete_users)"
complete -c tlssniff -s f -l follow-forks -d 'With -p or a command: also their children'
complete -c tlssniff -s D -l list-targets -d 'List processes and their TLS libraries, with the reason for each that cannot be captured'
complete -c tlssniff -s A -l ascii-payload -d 'Payload as text under each line: heads and bodies of messages'
complete -c tlssniff -s x -l hex -d 'Payload in hex under each line'
complete -c tlssniff -s X -l hex-ascii -d 'Payload in hex and text under each line'
complete -c tlssniff -l raw -d 'One line per read or write instead of one per message; -x and -X imply it'
complete -c tlssniff -l headers -d 'The heads of HTTP messages under their lines, as -vv does'
complete -c tlssniff -l body -d 'The bodies of messages under their lines, decompressed, JSON indented'
complete -c tlssniff -l stats -d 'At the end, a table of hosts: requests, statuses, and how long responses took'
complete -c tlssniff -s q -l quiet -d 'Shorter lines: no addresses, no connection number'
complete -c tlssniff -s v -l verbose -d 'More: -v lines for connections, -vv also the head of each message, and function, thread and offset of each call'
complete -c tlssniff -s t -l time -d 'Time: -t none, -tt epoch, -ttt since the line before, -tttt with date, -ttttt since the first'
complete -c tlssniff -l nano -d 'Times with nanoseconds instead of microseconds'
complete -c tlssniff -s '#' -l number -d 'Number the lines'
complete -c tlssniff -s n -d 'Accepted for tcpdump\'s sake: names are never looked up'
complete -c tlssniff -l json -d 'One JSON object per line; the same as --format json'
complete -c tlssniff -l ascii -d 'Mark decrypted lines with `TLS` instead of the open lock'
complete -c tlssniff -s l -l line-buffered -d 'Hand on each line at once, also into a pipe or file'
complete -c tlssniff -l tui -d 'Look at the exchanges in the terminal, live or of a file (-r): list, details, filter, export; ? shows the keys. A command\'s input and output are /dev/null where they are the terminal'
complete -c tlssniff -l pcap -d 'Save as classic pcap (also chosen by a file name that ends in .pcap)'
complete -c tlssniff -l print -d 'Print also when -w is given'
complete -c tlssniff -s U -l packet-buffered -d 'Hand on each packet at once to the file of -w'
complete -c tlssniff -l listen-anyone -d 'With --listen: also readers of other users and of other machines; nothing is encrypted'
complete -c tlssniff -l debug -d 'Tell on standard error what is found, where the probes are, and why there'
complete -c tlssniff -s V -l version -d 'Print the version; with -v also what is used of this kernel, and why'
complete -c tlssniff -s h -l help -d 'Print help'
