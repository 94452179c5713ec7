# SPDX-License-Identifier: BSD-2-Clause
"""The sentences of findings, and their fixes.

A key is a finding's id, with a variant after a slash where an id has several sentences. Fields are
those of base.finding(): ``who`` and ``peer`` are the owners, ``where`` is the destination.
"""

from __future__ import annotations

from typing import NamedTuple


class Sentence(NamedTuple):
    """What is wrong, and what to do, as templates of str.format()."""

    text: str
    fix: str


# Texts about drops on this host: of an attempt's SYN, or of a connection's segments.
DROPPED = {
    "attempt": "{who} gets no answer from {where}: the {packet} is dropped on this host: {advice}",
    "segments": "segments between {between} are dropped on this host, and sent again: {advice}",
    "answers": "what {where} sends to {who}, or its acknowledgements, is dropped on this host: {advice}",
}
SENTENCES = {
    # -- attempts that fail
    "no-listener": Sentence(
        "{who} calls {where}, and nobody listens at port {dport} in {place}",
        "start what should serve port {dport}, or correct the port that is called",
    ),
    "no-listener/loopback": Sentence(
        "{who} calls {where}, and nobody listens at port {dport} in {place}; {others} does in another "
        "network namespace, where 127.0.0.1 is another one",
        "call {others} by its own address or name, or share its network namespace",
    ),
    "no-listener/elsewhere": Sentence(
        "{who} calls {where}, and nobody listens at port {dport} in {place}; {others} does in another "
        "network namespace",
        "call the address of {others}, publish its port, or start the service where it is called",
    ),
    "no-listener/starting": Sentence(
        "{who} was refused by {where}: nobody listened there, and {peer} does by now",
        "let the client try again while the service starts",
    ),
    "no-listener/far": Sentence(
        "{who} is refused by {where}: the reset came from there, or from a firewall on the way; this "
        "host dropped nothing",
        "start the service there, have it listen on that address and port, or let its firewall accept",
    ),
    "wrong-bind-address": Sentence(
        "{who} calls {where}, and {peer} listens on {addresses} alone",
        "have {peer} listen on {target} or on 0.0.0.0 (::), or call {addresses}",
    ),
    "wrong-bind-address/device": Sentence(
        "{who} calls {where}, and {peer}, which listens at {listener} there, doesn't take it: its "
        "listener is bound to another device (SO_BINDTODEVICE)",
        "have {peer} listen on all devices; '{enter}ss -ltn' shows the device of a listener, as in %lo",
    ),
    "duplicate-address": Sentence(
        "{where} is there twice: {place} and {other_place} have the address, and {peer} listens in one "
        "of them alone; who answers is a matter of chance",
        "take {daddr} away from one of them ('{enter}ip addr')",
    ),
    "duplicate-address/resets": Sentence(
        "{where} is there twice: {place} and {other_place} have the address, and both got what {who} "
        "sent; the one that doesn't know a connection resets it",
        "take {daddr} away from one of them ('{enter}ip addr')",
    ),
    "firewall-drop/unsent": Sentence(
        "what {who} sends to {where} doesn't leave, and the other side's window is open: {by} may drop "
        "it",
        "look at '{enter}nft list ruleset' and 'bpftool cgroup tree', and let it pass",
    ),
    "firewall-reject": Sentence(
        "{who} is refused by a firewall on this host, on its way to {where}: {advice}",
        "let the rule accept port {dport}, or have {who} call what it may",
    ),
    "firewall-reject/far": Sentence(
        "{who} is refused on its way to {where} ({result}): a firewall or router answers by ICMP that "
        "it is prohibited",
        "let the firewalls on the way accept port {dport}",
    ),
    "connect-denied": Sentence(
        "{who} may not connect to {where} ({result}): a BPF program at its cgroup, a security module, "
        "or a rule of the output hook forbids it",
        "look at 'bpftool cgroup tree', '{enter}nft list ruleset', and the audit log, and let it",
    ),
    "ports-exhausted": Sentence(
        "{who} finds no free local port for {where}: the range {range} is used up to that destination",
        "keep connections open instead of making new ones, widen net.ipv4.ip_local_port_range, or use "
        "more addresses",
    ),
    "source-address-missing": Sentence(
        "{who} can't connect to {where} from {source} ({result}): no device there has that source "
        "address",
        "give the address back ('{enter}ip addr'), or bind to another one",
    ),
    "source-address-missing/unanswered": Sentence(
        "{who} gets no answer from {where}: no device there has its source address {source}, so "
        "answers don't find back",
        "give the address back ('{enter}ip addr'), or bind to another one",
    ),
    "source-address-missing/open": Sentence(
        "what {who} sends to {where} doesn't leave: no device there has its source address {source} "
        "any more",
        "give the address back, or have the connections made again from another one",
    ),
    "no-route": Sentence(
        "{who} can't connect to {where} ({result}): its network namespace has no route there",
        "add the route ('{enter}ip route get {daddr}' tells), or call another address",
    ),
    "no-route/refusing": Sentence(
        "{who} can't connect to {where} ({result}): a route or rule of its network namespace refuses "
        "it ({kind})",
        "take the {kind} route or rule away ('{enter}ip route get {daddr}', '{enter}ip rule'), or call "
        "another address",
    ),
    "no-route/open": Sentence(
        "what {who} sends to {where} doesn't leave: its network namespace has no route there any more "
        "({result})",
        "add the route, or bring its device up ('{enter}ip route get {daddr}', '{enter}ip link')",
    ),
    "no-route/back": Sentence(
        "{who} gets no answer from {where}: its SYN comes to {peer}, and {place} has no route back to "
        "{source}",
        "add the route back: '{enter}ip route get {source}' tells",
    ),
    "no-route/unreachable": Sentence(
        "{who} can't reach {where} ({result}): a router, or this host for lack of an answer on the "
        "link, says that it isn't reachable",
        "check the address, and '{enter}ip route get {daddr}'; or who answers for it on the link (ip "
        "neigh)",
    ),
    "syn-unanswered": Sentence(
        "{who} gets no answer from {where}: its SYNs leave this host, nothing comes back, and nothing "
        "was dropped here",
        "check that the address is right and the host up, and the firewalls and routes on the way and "
        "back",
    ),
    "syn-unanswered/dropped": Sentence(
        "{who} gets no answer from {where}: this host dropped {drops} of the handshake in {function}, "
        "and it isn't known why",
        "have 'cgnet drop --explain' show what the function is called by; from 5.17 on the kernel tells "
        "the reason",
    ),
    "accept-queue-full/half-open": Sentence(
        "{who} can't take more SYNs at {listener}: {drops} SYNs were dropped; {advice}",
        "let the answers to those SYNs through, use SYN cookies, or have a longer backlog",
    ),
    "syn-unanswered/refused": Sentence(
        "{who} gets no answer from {where}: this host dropped {drops} of the handshake: {advice}",
        "have both sides agree on what this tells",
    ),
    # -- accept queues
    "accept-queue-full": Sentence(
        "{who} accepts too slowly at {listener}: {fullest} connections waited, {backlog} may; {drops} "
        "dropped meanwhile{cpu}",
        "have the application call accept() faster or in more processes; a longer backlog{somaxconn} "
        "helps with bursts only",
    ),
    # -- open connections that don't get on
    "path-loss": Sentence(
        "segments between {between} are lost on the way: {resent} were sent again, and this host "
        "dropped none of them",
        "look for loss on the links and hosts between (interface errors, policers, a full queue)",
    ),
    "path-loss/segments": Sentence(
        DROPPED["segments"], "look at the sender, and at what changes packets on the way"
    ),
    "path-loss/handshake": Sentence(
        "{who} waits for {where}: {late} took a second SYN, a second or more each, or failed, while "
        "others were answered; this host dropped none of them",
        "look for loss on the way, for a server that is overloaded, or for one of several behind the "
        "address that is gone",
    ),
    "path-reordering": Sentence(
        "segments between {between} overtake each other on the way: {needless} of {resent} were sent "
        "again for nothing",
        "let all packets of a connection take one way (hash by connection, not by packet)",
    ),
    "path-delay": Sentence(
        "between {between} each round trip takes {least} ms at least: distance, or a queue that is "
        "always full",
        "serve it from nearer, need fewer round trips (keep connections open), or shorten the queue",
    ),
    "path-delay/grown": Sentence(
        "between {between} round trips take {now} ms now, and took {least} ms at least: a queue on "
        "the way has grown, or the way has changed",
        "serve it from nearer, need fewer round trips (keep connections open), or shorten the queue",
    ),
    "mtu-blackhole": Sentence(
        "large segments between {between} never arrive, and small ones do: a link on the way takes "
        "less, and its ICMP 'too big' doesn't come back",
        "lower the MTU (or MSS) of the sender's link, or let ICMP 'too big' through; "
        "net.ipv4.tcp_mtu_probing 1 finds the size",
    ),
    "peer-vanished/link": Sentence(
        "what {who} sent to {where} isn't acknowledged any more: {advice}",
        "bring the device, or its other end, up; TCP_USER_TIMEOUT or keepalive ends such connections "
        "sooner",
    ),
    "peer-vanished": Sentence(
        "what {who} sent to {where} isn't acknowledged any more, for {stuck} s: the other side is "
        "gone, or the way to it",
        "check the other host and the way to it; TCP_USER_TIMEOUT or keepalive ends such connections "
        "sooner",
    ),
    "receive-buffer-small": Sentence(
        "{who} reads what {peer} sends at once, and its receive buffer is too small: the sender waits "
        "for the window a good part of the time",
        "let the application not set SO_RCVBUF, or set more; net.ipv4.tcp_rmem bounds what the kernel "
        "gives",
    ),
    "receive-buffer-small/far": Sentence(
        "the other side of {between} gives too small a window: it reads slowly, or its receive buffer "
        "is small",
        "look at the receiver: its CPU, what it does between reads, its SO_RCVBUF",
    ),
    "slow-reader": Sentence(
        "{who} reads too slowly what {peer} sends: {unread} bytes wait for it, and the window is closed",
        "have the application read faster (or in a thread of its own)",
    ),
    "slow-reader/unread": Sentence(
        "{who} doesn't read what it gets from the other side: {unread} bytes wait for it",
        "have the application read faster (or in a thread of its own)",
    ),
    "slow-reader/far": Sentence(
        "the other side of {between} doesn't read what it gets: its window is closed",
        "look at the receiver: its CPU, what it does between reads, its SO_RCVBUF",
    ),
    "cpu-limit/reader": Sentence(
        "{who} reads too slowly what {peer} sends: {unread} bytes wait for it, and the window is "
        "closed{cpu}",
        "raise its CPU limit, or have the application read faster (or in a thread of its own)",
    ),
    "cpu-limit/unread": Sentence(
        "{who} doesn't read what it gets from the other side: {unread} bytes wait for it{cpu}",
        "raise its CPU limit, or have the application read faster (or in a thread of its own)",
    ),
    "cpu-limit": Sentence(
        "{client} waits for {where} {share} of the time: {server} has the requests, and takes long to "
        "answer{cpu}",
        "raise its CPU limit, or give it more instances",
    ),
    "cpu-limit/thinks": Sentence(
        "{who} takes {took} to answer requests at its port {dport}: its clients wait for it {share} of "
        "the time{cpu}",
        "raise its CPU limit, or give it more instances",
    ),
    "slow-server/thinks": Sentence(
        "{who} takes {took} to answer requests at its port {dport}: its clients wait for it {share} of "
        "the time",
        "look at the server application: its threads, its database, other services that it calls",
    ),
    "slow-server/unread": Sentence(
        "{server} doesn't read what {client} asks for at port {dport}: {connections} with unread "
        "requests, for up to {longest} s{cpu}",
        "look at the application that answers: is it stopped, deadlocked, or busy with others; has it "
        "enough threads",
    ),
    "slow-server": Sentence(
        "{client} waits for {where} {share} of the time: {server} has the requests, and takes long to "
        "answer",
        "look at the server application: its threads, its database, other services that it calls",
    ),
    # -- connections that end with harm
    "killed-locally": Sentence(
        "{connections} of {who} with {far} killed on this host, by another than the owner: ss -K, or a "
        "manager of connections",
        "find who does it (a health checker, a script, a mesh's agent), and let it not",
    ),
    "peer-vanished/ended": Sentence(
        "{connections} of {who} with {far} timed out: nothing came from the other side any more",
        "check the other host and the way to it; a keepalive notices it sooner",
    ),
    "listener-closed": Sentence(
        "{who} closed its listener at port {dport} with connections in its queue: they were reset, "
        "{reset} of {peer}",
        "accept what is in the queue before closing, or hand the listener on (SO_REUSEPORT doesn't: "
        "each has a queue of its own)",
    ),
    "idle-reset": Sentence(
        "{who} used connections to {far} that were over there already, and was reset: its data found "
        "no connection in {place}",
        "let the client's idle time-out be shorter than the server's (and than that of a NAT between), "
        "use keepalive, and try again once",
    ),
    "reset-by-peer": Sentence(
        "{far} reset {connections} of {who}{reason}",
        "look at the server's log: it aborts, closes with data unread, or a proxy in between gives up",
    ),
}

DROPPED_FIXES = {
    "firewall-drop": "let the rule accept it, or have the client call what it may",
    "firewall-reject": "let the rule accept it, or have the client call what it may",
    "rp-filter": "add the route back through that device, or set rp_filter to 2 (loose)",
    "qdisc-limit": "raise the limit or the rate of the queue, or send less through the device",
    "conntrack-full": "raise nf_conntrack_max, or have fewer or shorter connections tracked",
    "no-route": "add the route, or call an address that is reachable",
    "tcp-memory": "give TCP, or the container, more memory, or have the application read faster",
    "mtu-blackhole": "lower the MTU (or MSS) of the sender's link, or let ICMP 'too big' through",
    "time-wait-refused": "let the client, or the NAT, use its ports again later; keep connections open",
    "no-listener": "start the service, or correct the address",
    "accept-queue-full": "have the application accept faster, or raise its backlog",
}
SENTENCES |= {
    f"{ident}/{sent}": Sentence(text, fix)
    for sent, text in DROPPED.items()
    for ident, fix in DROPPED_FIXES.items()
}
