//! The built-in rules, second half: what is told by words that others use as well.

use super::{Category, Row, row};

pub(in super::super) const RULES: &[Row] = &[
    row(
        "broken_service",
        Category::DependencyFailure,
        "upstream connect error; no healthy upstream; http:500; http:501; http:502; http:503; \
         http:520; http:521; http:523; http:525; http:526; http:527; http:529; http:530; \
         overloaded; service unavailable; service_unavailable; serviceunavailable; bad gateway; \
         badgateway; bad_gateway; internal server error; internalservererror; \
         internal_server_error; internalserverexception; internalserver; |server_error; \
         |servererror; temporarily unavailable; currently unavailable; not available right now; \
         model is not ready; modelnotready; model is loading; currently loading; is loading; \
         |loading redis; database system is; shutting down; recovery mode; in recovery; \
         not primary; notprimary; not master; notmaster; notwritableprimary; primarysteppeddown; \
         not the leader; not leader; not_leader; notleader; leader not available; \
         leader_not_available; quorum; no shard available; no leader; no brokers available; \
         nobrokersavailable; brokernotavailable; not_enough_replicas; notenoughreplicas; \
         can't write against a read only; read only replica; readonlyerror; \
         read-only transaction; clusterdown; masterdown; misconf; cluster_block; deadlock; \
         database is locked; database table is locked; sqlite_busy; could not serialize; \
         serialization failure; serializationfailure; administrator command; adminshutdown; \
         crash of another server; no primary; target closed; targetclosed; \
         browser has been closed; browser closed; browser disconnected; \
         browser has disconnected; page crashed; page crash; browser crash; browser process; \
         tab crashed; chrome not reachable; chrome failed to start; chrome instance exited; \
         failed to launch; sessionnotcreated; session not created; devtoolsactiveport; \
         invalid session id; invalidsessionid; disconnected: not connected to; \
         unable to receive message from renderer; docker daemon; circuit breaker; \
         circuitbreaker; circuit is open; callnotpermitted; brokencircuit; imagepull; \
         crashloopbackoff; mcp error -32603; mcp error -32000; connection_forced; \
         failed dependency; http:424; dependency failed; maintenance; unhealthy; liveness probe; \
         readiness probe; statuscode.unavailable desc = upstream; master_not_discovered; \
         no shards available; all shards failed; shard*unavailable; no living connections; \
         noshardavailable; unavailableshards; unavailable_shards; internal error encountered; \
         an internal error has occurred; internalfailure; internal failure; internalerror; \
         |dependencyfailed; backend fetch failed; bad response from; returned an error page; \
         engine is currently; model*unavailable; modelerror; capacity; no nodes available; \
         nonodeavailable; sidecar; 5xx",
        "http:504; gateway timeout; gateway time-out; |enfile; pthread; \
         tunnel connection failed; proxyerror",
    ),
    row(
        "deadline",
        Category::Timeout,
        "timed out; timed-out; timedout; timed_out; time-out; |time out|; timeout exceeded; \
         timeouterror; timeoutexception; timeoutexpired; timeout expired; timeout error; \
         timeout_error; timeout reached; timeout occurred; timeout after; timeout while; \
         timeout waiting; timeout of; timeout period; timeout elapsed; read timeout; \
         readtimeout; write timeout; writetimeout; connect timeout; connecttimeout; \
         connection timeout; network timeout; connectiontimeout; connection_timeout; \
         err_connection_timed_out; deadline exceeded; deadlineexceeded; deadline_exceeded; \
         deadline*elapsed; deadline*passed; deadline*expired; missed*deadline; past*deadline; \
         exceeded*deadline; i/o timeout; etimedout; |etime|; esockettimedout; socket timeout; \
         sockettimeout; err_timed_out; request timeout; requesttimeout; request_timeout; \
         response timeout; gateway timeout; gateway time-out; gatewaytimeout; http:408; \
         http:504; http:522; http:524; http:598; http:599; statement timeout; lock timeout; \
         lock wait; lock_timeout; locknotavailable; locktimeout; query timeout; \
         timeout*exceeded; exceeded*timeout; exceeds*timeout; hit*timeout; execution timeout; \
         navigation timeout; timeout*ms; time limit; timelimit; time_limit; |tle|; \
         took too long; taking too long; execution expired; opentimeout; maximum execution time; \
         maximum statement execution time; max_execution_time; exit code 124; exit status 124; \
         exit code: 124; exited with code 124; |code 124|; respond within; respond in time; \
         complete within; finish within; finished within; completed within; ready within; \
         response within; reply within; answer within; within*seconds; within*ms|; within* s|; \
         within*minutes; no response from; no response after; no reply after; no output for; \
         gave up waiting; gave up after*seconds; gave up after* s|; waited*for; \
         waiting longer than; waited too long; lease expired; no heartbeat; heartbeat timeout; \
         heartbeat*missed; maxtimems; active longer than; longer than*seconds; longer than* s|; \
         longer than*minutes; watchdog; maximum duration; max duration; seconds elapsed; \
         seconds elapsing; httpclient.timeout; canceling statement due to; \
         query execution was interrupted; asyncio.timeout; curl: (28); wallclock; wall clock; \
         wall-clock; max runtime; maximum runtime; allowed time; allotted time",
        "connection refused; econnrefused; connection reset by peer; name or service not known; \
         could not resolve host; retries within",
    ),
    row(
        "network",
        Category::NetworkError,
        "connection refused; econnrefused; connectionrefused; connection_refused; \
         actively refused; refused the connection; refused to connect; connection reset; \
         econnreset; connectionreset; connection_reset; reset by peer; reset by remote; \
         forcibly closed; broken pipe; brokenpipe; |epipe; connection aborted; \
         connectionaborted; econnaborted; connection abort; connection closed; \
         connection_closed; connectionclosed; connection was closed; connection has been closed; \
         connection is closed; connection lost; connectionlost; lost connection; \
         connection was lost; connection terminated; connection dropped; connection was dropped; \
         connection interrupted; closed the connection; closed connection; closed by the remote; \
         closed by remote; closed by peer; closed by the server; closed unexpectedly; \
         closed by server; gone away; connectionerror; connecterror; connection error; \
         connection issue; socket hang up; socketexception; socketerror; socket error; \
         socket closed; socket disconnected; other side closed; remotedisconnected; \
         remote end closed; remote end hung up; remote host closed; server disconnected; \
         serverdisconnected; remoteprotocolerror; peer closed; incomplete chunked; \
         incompleteread; chunkedencoding; premature close; err_stream_premature_close; \
         unexpected eof; ended prematurely; response ended; before message completed; \
         before headers; before response; before a response; getaddrinfo; gaierror; |enotfound; \
         |eai_; name or service not known; nodename nor servname; name resolution; \
         could not resolve; couldn't resolve; cannot resolve host; failed to resolve; \
         unable to resolve; unresolvedaddress; host not found; name not resolved; unknownhost; \
         unknown host; unknown mysql server host; no such host; nxdomain; |dns|; dns_; \
         |dnserror; servfail; no address associated; net::err; ns_error_; fetch failed; \
         failed to fetch; network error; networkerror; network_error; network connection; \
         network failure; network request failed; nohttpresponse; failed to respond; \
         hostname could not; no servers available; could not be resolved; cannot be resolved; \
         can not be resolved; clientpayload; payload is not completed; transferencoding; \
         contentlengtherror; cannot reach; could not reach; can't reach; couldn't reach; \
         unable to reach; failed to reach; not reachable; connection broke; hung up; \
         network is unreachable; network unreachable; networkunreachable; enetunreach; \
         ehostunreach; enetdown; host unreachable; hostunreachable; host is unreachable; \
         no route to host; host is down; noroutetohost; unreachable; network is down; \
         network down; sslerror; ssl error; ssl:; ssl_; sslexception; sslhandshake; |ssl|; \
         certificate; |tls|; |tlsv; tls_; x509; handshake; err_tls; depth_zero; \
         unable_to_verify; unable to verify the first; self-signed; self signed; new connection; \
         could not connect; couldn't connect; cannot connect; can't connect; failed to connect; \
         unable to connect; not connect to; connect failed; connection failed; \
         connection to*failed; connectexception; connectfailure; connect call failed; \
         connect error; connection failure; connection attempt; error trying to connect; \
         dial tcp; dial unix; dialing; error while dialing; proxyerror; proxy error; \
         proxyconnect; tunnel connection; websocket*closed; websocket*1006; abnormal closure; \
         code = 1006; stream reset; rst_stream; goaway; protocol error; protocol_error; \
         transport failure; transport endpoint; transport error; transport is closing; \
         transport:; network changed; clientconnector; clientoserror; eof occurred in violation; \
         all connection attempts failed; sending request for url; operationalerror: connection; \
         closed network connection; could not read from remote repository; rpc failed; \
         early eof; curl: (; curl 56; curl 18; curl 92; empty reply; \
         communications link failure; the network name; no internet; offline; not connected; \
         |eof|; |eoferror; connection*closed; connection*dropped; channel closed; wsarecv; \
         wsaeconn; winerror 10; errno 104; errno 111; errno 113; errno 32; os error 104; \
         os error 111; nodehost; server selection; stream closed; stream was closed; err_http2",
        "curl: (22)",
    ),
    row(
        "time",
        Category::Timeout,
        "timeout; deadline; |expired waiting; within #s|; within # s|; within # sec; \
         within # min; within #m|; within # hour; within #ms|; within # ms|; for #s|; for # s|; \
         for # sec; for # min; longer than #; # minute limit; # second limit; #s limit; \
         # s limit; # hour limit; #-minute; #-second; # minutes limit; # seconds limit; \
         limit of # s; limit of #s|; limit of # min; |hung|; stalled; |stuck|; |elapsed; \
         not granted; gave up on; gave up after; too slow; silent for; no bytes; \
         nothing received; never returned; never answered; did not return in; no answer; \
         no reply; never finished; never completed; stopped after # s; stopped after #s|; \
         stopped after # min; killed after # s; killed after #s|; killed after # min; \
         aborted after #; cancelled after #; exceeded # s; exceeded #s|; exceeded # min; \
         exceeded # ms; exceeded #ms|; ran for #; running for #; ran longer; took longer",
        "must be; should be; invalid timeout; timeout=none; invalid argument; invalid_argument; \
         invalidargument; field*timeout; parameter*timeout; timeout_seconds; timeout value; \
         'timeout'; \"timeout\"; `timeout`; http:400; http:422",
    ),
    row(
        "killed",
        Category::ResourceExhaustion,
        "|killed|",
        "by user; cancel",
    ),
    row(
        "cancelled",
        Category::Cancelled,
        "cancellederror; context canceled; context cancelled; operation was canceled; \
         operation was cancelled; task was canceled; task was cancelled; operationcanceled; \
         taskcanceled; aborterror; operation was aborted; user aborted; aborted by user; \
         cancelled by; canceled by; was cancelled; was canceled; request canceled; \
         request cancelled; code = canceled; statuscode.cancelled; keyboardinterrupt; \
         exit code 143; exit code 130; signal 15; sigterm; signal: terminated; \
         interruptedexception; sigint; http:499; cancellationexception",
        "",
    ),
    row(
        "type",
        Category::HandlerException,
        "typeerror; rangeerror; syntaxerror; command not found; executable file not found; \
         no such file or directory; |enoent; filenotfound; cannot find module; module not found; \
         cannot find package; no module named; class not found; stale element; staleelement; \
         nosuchelement; no such element; element not found; unable to locate element; \
         element click intercepted; not interactable; strict mode violation; \
         err_module_not_found; err_require_esm; exit code 127; exit code 126; exit status 127; \
         not a git repository; is a directory; not a directory; eexist; eisdir; enotdir; \
         linkageerror; unsatisfiedlink; undefined symbol; undefined reference; \
         shared object file; library not loaded; glibc; typeloadexception; \
         missingmethodexception; could not load file or assembly; unhandled; uncaught error:; \
         runtimeerror: cuda error; cuda error; cuda driver",
        "invalid value; filenotfound*model",
    ),
    row(
        "rules_of_a_service",
        Category::ValidationError,
        "http:400; http:422; http:404; http:405; http:406; http:409; http:410; http:411; \
         http:412; http:413; http:414; http:415; http:416; http:428; http:431; http:4xx; -32600; \
         -32601; -32602; method not found; unknown method; unknown value; allowed are; \
         allowed values; allowed range; invalid_request; invalidrequest; invalid request; \
         bad request; badrequest; bad_request; unprocessable; invalid argument; \
         invalid_argument; invalidargument; illegalargument; illegal argument; \
         invalid parameter; invalidparameter; invalid_parameter; invalid value; invalid_value; \
         invalidvalue; invalid enum; invalid input; invalidinput; invalid option; \
         invalid format; invalid type; invalid field; invalid model; invalid_model; \
         unknown model; model not found; model_not_found; modelnotfound; model*does not exist; \
         model*not found; model*not supported; model*not exist; unknown tool; no such tool; \
         tool not found; tool*not found; tool*does not exist; tool*not registered; \
         tool*not exist; tool*not available; not a valid tool; unknown function; \
         function*not found; function*does not exist; unknown action; unknown agent; \
         not a valid; isn't a valid; is not valid; isn't valid; is invalid; unsupported; \
         not supported; unexpected property; unexpected field; unexpected value; \
         unexpected argument; unrecognized; unknown parameter; unknown argument; \
         unknown property; unknown enum; unknown type; unknown key; must be; must have; \
         must not; must match; must contain; must start; must end; must provide; must specify; \
         must include; must equal; should be; should match; should have; should not; \
         expected*got; expected*but; expected*received; expected*found; expected type; \
         is required; are required; is missing; missing required; missing mandatory; mandatory; \
         required field; required key; required param; required argument; requires*field; \
         missing parameter; missing field; missing property; missing value; missing key; \
         missing column; missing input; not provided; wrong arguments; wrong argument; \
         cannot be null; can't be blank; cannot be blank; cannot be empty; can't be empty; \
         not be null; not be empty; not be blank; cannot be negative; not be negative; \
         null value; not-null; not null constraint; violates; violation; constraint; \
         duplicate key; duplicate entry; duplicatekey; e11000; integrityerror; uniqueviolation; \
         dataerror; datetimefieldoverflow; numericvalueout; foreign key; too long for; \
         data too long; value too long; string too long; array too long; out of range; \
         outofrange; out_of_range; too large; too long; too short; too big; too small; \
         exceeds the maximum; exceeds maximum; exceeds max; over the maximum; maximum length; \
         maximum size; max length; minimum length; greater than; less than; larger than; \
         smaller than; at most; at least; not one of; one of; not in enum; |enum|; \
         does not exist; doesn't exist; do not exist; no such table; no such column; \
         no such index; no such collection; no such key; nosuchkey; nosuchbucket; \
         unknown column; unknown table; unknown database; undefinedtable; undefinedcolumn; \
         table*doesn't exist; resourcenotfound; resource not found; notfounderror; \
         notfoundexception; index_not_found; schema; type mismatch; mismatched types; \
         datatype mismatch; incompatible; not assignable; precondition; failed_precondition; \
         not_found; already exists; already_exists; alreadyexists; no enum constant; \
         argumentexception; argumentnull; argumentoutofrange; argumenterror; invalid uuid; \
         invalid date; invalid email; invalid url; invalid id; invalid name; invalid regex; \
         wrongtype; pathspec; unknown option; unknown flag; unknown command; illegal option; \
         invalid choice; content_filter; content filter; content management policy; \
         content policy; content_policy; safety; not permitted; not allowed; disallowed; \
         non-fast-forward; merge conflict; message larger; recordtoolarge; messagesizetoolarge; \
         message_too_large; precondition_failed; no matching; cannot find name; \
         cannot find value; incorrect type; wrong type; bad value; badvalue; |invalid|; \
         invalid*for; validate; typemismatch; strict_dynamic_mapping; expected a; expected an; \
         expected one; conflict",
        "temporarily; server error",
    ),
];

/// Over each part in turn, where no part matched a rule above: what a wrapper says as well.
pub(in super::super) const WEAK: &[Row] = &[
    row(
        "vague_service",
        Category::DependencyFailure,
        "|unavailable|; code = internal; statuscode.internal; statuscode.unknown; \
         code = unknown; statuscode.aborted; code = aborted; code = dataloss; upstream; backend; \
         server error; server had an error; server encountered; apierror; api_error; \
         remote service; remote server; third-party; third party; provider; external service; \
         returned error; not responding; unresponsive; dependency; internal error; downstream; \
         is down; outage; degraded; crashed; tool*failed; replica; not ready; broker; \
         service*error; service*failed; try again later; tool server; mcp server; transient; \
         temporary failure; temporary error; temporarily; server*crashed; \
         could not start server; failed to start; exited unexpectedly; terminated unexpectedly; \
         status: failed",
        "something went wrong; unknown error; unexpected error; tool call failed|; \
         tool execution failed|; traceback",
    ),
    row(
        "words_of_access",
        Category::AuthenticationError,
        "is not set; denied; login; password; permission; privilege; not permitted; secret; \
         signature; access to",
        "traceback",
    ),
    row(
        "words_of_budgets",
        Category::BudgetExhausted,
        "|usd; |eur|; $#; |cost|; |spent|; |tokens|; |spend|; |credit|; |quota|",
        "traceback",
    ),
    row(
        "words_of_syntax",
        Category::ParsingError,
        "|parse; |decod; syntax; premature; |json|; |xml|; |yaml|; |csv|; |html|; |utf-8|; \
         encoding; not a number; |tag|",
        "traceback; typeerror",
    ),
    row(
        "words_of_lines",
        Category::NetworkError,
        "socket; |network|; hostname; |host|; |connection|; |proxy|; |peer|; |port|",
        "traceback",
    ),
    row(
        "words_of_room",
        Category::ResourceExhaustion,
        "|memory; |heap|; exhausted; |cpu|; |gpu|; |disk|; |ram|; limit exceeded; limit reached",
        "traceback",
    ),
    row(
        "words_of_time",
        Category::Timeout,
        "too slow; |slow|; too long; waiting; |waited|",
        "traceback",
    ),
    row(
        "words_of_rules",
        Category::ValidationError,
        "|required|; not found; |valid|; |missing|; |argument|; |parameter|; |allowed|; \
         |expects|; cannot exceed; |must|; not accepted; does not accept; not recognised; \
         not recognized",
        "traceback",
    ),
];

/// Over the whole text, where no part said anything: how a crash looks that says nothing more.
pub(in super::super) const LAST: &[Row] = &[
    row(
        "vague",
        Category::Unknown,
        "something went wrong; unknown error; unexpected error occurred; an error occurred; \
         an error has occurred; unspecified error; unknown reason; unknown failure; no details; \
         see logs; check the logs; an unexpected error; error: null; error: undefined",
        "traceback; exception in thread; runtimeerror; unhandled",
    ),
    row(
        "uncaught",
        Category::HandlerException,
        "traceback; runtimeerror; exception in thread; uncaught; unhandled; illegalstate; \
         invalidoperation; valueerror; lookuperror; stopiteration; stopasynciteration; |oserror; \
         runtimeexception; arithmeticexception; stack trace; fatal error; invariant; \
         bufferoverflow; negativearraysize; arraystore; unsupportedoperation; emptystack; \
         systemerror; logicexception; logic_error; logicerror; fatalerror; runtime_error; std::; \
         terminate called; standarderror; exception:; eoferror; overflowerror; buffererror; \
         crash; |bug|; handler failed with; handler raised; handler threw",
        "",
    ),
];
