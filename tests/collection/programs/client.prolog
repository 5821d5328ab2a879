% Two requests over one connection.
:- use_module(library(ssl)).
:- use_module(library(socket)).
:- use_module(library(readutil)).

main :-
    current_prolog_flag(argv, [Host, PortText|_]),
    atom_number(PortText, Port),
    tcp_connect(Host:Port, Plain, []),
    stream_pair(Plain, PlainIn, PlainOut),
    ssl_context(client, Context, [host(Host), cert_verify_hook(cert_accept_any)]),
    ssl_negotiate(Context, PlainIn, PlainOut, In, Out),
    forall(member(Path, ['/one', '/two']), get(In, Out, Path)),
    halt.

get(In, Out, Path) :-
    format(Out, "GET ~w HTTP/1.1\r\nHost: a\r\n\r\n", [Path]),
    flush_output(Out),
    head(In, 0, Size),
    read_string(In, Size, _).

head(In, Size0, Size) :-
    read_line_to_string(In, Line),
    (   Line == "" -> Size = Size0
    ;   split_string(Line, ":", " \r", ["Content-Length", Text]) -> number_string(Size1, Text), head(In, Size1, Size)
    ;   head(In, Size0, Size)
    ).
