//! The built-in rules, first half: what is certain by its own words.
//!
//! Patterns are separated by `;`. The order carries meaning: budgets before rates, because a used
//! up quota is told as status 429; both before the memory that a service may call exhausted; a
//! parse error before a status 400; a broken service before the time-out that it reports. Each
//! rule holds the words of one kind, whatever language or library says them.

use crate::dead_letter::category::Category;

pub(super) mod more;

/// One built-in rule; lists of patterns as in `RuleSpec`, separated by `;`.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) category: Category,
    pub(super) any_of: &'static str,
    pub(super) none_of: &'static str,
}

const fn row(
    name: &'static str,
    category: Category,
    any_of: &'static str,
    none_of: &'static str,
) -> Row {
    Row {
        name,
        category,
        any_of,
        none_of,
    }
}

pub(super) const RULES: &[Row] = &[
    row(
        "crash",
        Category::HandlerException,
        "cannot read propert; cannot set propert; is not a function; is not iterable; \
         is not a constructor; referenceerror; 'nonetype' object; |keyerror; |attributeerror; \
         |indexerror; |nameerror; unboundlocalerror; zerodivisionerror; assertionerror; \
         assertion failed; assertion `; |recursionerror; |notimplementederror; \
         modulenotfounderror; |importerror; indentationerror; nil pointer; nullpointerexception; \
         nullreferenceexception; object reference not set; null pointer; index out of range; \
         index out of bounds; indexoutofbounds; index was outside the bounds; bounds for length; \
         undefined method; undefined local variable; nomethoderror; nosuchmethod; \
         classcastexception; cannot be cast to; panicked at; |panic:; |panic |; \
         all goroutines are asleep; concurrent map; segmentation fault; sigsegv; sigabrt; \
         |segfault|; signal 11; core dumped; stackoverflowerror; stackoverflowexception; \
         maximum call stack; maximum recursion depth; stack level too deep; divide by zero; \
         division by zero; divided by 0; dividebyzero; call to undefined; \
         call to a member function; undefined variable; undefined array key; undefined index; \
         undefined offset; attempt to read property; concurrentmodification; noclassdeffound; \
         classnotfoundexception; classnotfounderror; already borrowed; already mutably borrowed; \
         attempt to subtract with overflow; attempt to add with overflow; is not callable; \
         not subscriptable; unsupported operand type; unsupported operand; positional argument; \
         unexpected keyword argument; wrong number of arguments; was never awaited; \
         dictionary changed size; values to unpack; empty sequence; operation on closed file; \
         event loop is closed; no running event loop; event loop is already running; \
         could not be broadcast; cannot be multiplied; device-side assert; \
         illegal memory access; exit code 139; exit status 139; exit code 134; exit code: 139; \
         exited with code 139; exited with 139; access violation; 0xc0000005; has no attribute; \
         uninitialized constant; can't convert nil; nil can't be coerced; \
         no implicit conversion; frozenerror; keynotfoundexception; \
         nosuchelementexception: no value present; no value present; interface conversion:; \
         send on closed channel; close of closed channel; assignment to entry in nil map; \
         slice bounds out of range; bad optional access; pure virtual; double free; \
         heap corruption; munmap_chunk; bus error; illegal instruction; sigbus; sigill; sigfpe; \
         unhandled match; matcherror; argumentcounterror; json serializable; not serializable; \
         circular structure; before initialization; before assignment; invalid pointer; free():; \
         invalidstateerror; found nil; unreachable code; found null; clauseerror; \
         function clause; no case clause; unhashable; truth value of; lateinit; uninitialized; \
         not been initialized; undefinedfunction; badmatch; badarity; fatal exception; \
         handler crashed; handler panicked; unwrap on; unwrap(); deadlock!; \
         entered unreachable code",
        "graphrecursionerror; recursion limit of; no such element",
    ),
    row(
        "budget",
        Category::BudgetExhausted,
        "insufficient_quota; insufficient quota; insufficientquota; context_length; \
         context length; contextlength; context window; context_window; contextwindow; \
         maximum context; context limit; context size; context is too long; prompt is too long; \
         prompt too long; prompt exceeds; prompt is too large; input is too long; \
         input too long; too many input tokens; too many tokens; input token count; \
         maximum number of tokens; maximum*tokens allowed; exceeds*max*tokens; tokens*exceeds; \
         tokens exceed; exceed*token limit; token limit; token_limit; tokenlimit; token budget; \
         max_tokens_exceeded; max tokens reached; max_tokens reached; reached max_tokens; \
         hit max_tokens; max_tokens limit; stop_reason*max_tokens; stopreason*max_tokens; \
         finish_reason*length|; finishreason*max_tokens; finish_reason*max_tokens; \
         truncated*max_tokens; max_tokens*truncated; max_tokens*before; max_output_tokens; \
         output token limit; output token maximum; lengthfinishreason; length limit was reached; \
         incompleteoutputexception; credit balance; insufficient credit; not enough credit; \
         out of credit; no credits; credits exhausted; credits*exhausted; credit limit; \
         run out of credits; remaining credits; requires more credits; insufficient balance; \
         insufficient_balance; insufficient funds; insufficient_funds; billing hard limit; \
         billing_hard_limit; billing_not_active; billing details; plan and billing; \
         plans & billing; billing account; enable billing; billing is; billing to be enabled; \
         payment required; payment_required; http:402; purchase credits; purchase more; \
         spend limit; spending limit; spend_limit; spending cap; spend cap; monthly limit; \
         monthly quota; monthly usage; monthly spend; account balance; usagelimitexceeded; \
         usage limit; usage_limit; quota is exhausted; |budget|; |budget_exceeded|; \
         budgetexceeded; budgetexhausted; budget_exhausted; cost limit; cost_limit; cost cap; \
         max cost; max_cost; maximum cost; costlimit; max iterations; max_iterations; \
         maxiterations; maximum iterations; iteration limit; maximum number of iterations; \
         max turns; max_turns; maxturns; maximum turns; number of turns; turn limit; \
         maximum number of steps; max steps; max_steps; maxsteps; step limit; steplimit; \
         maximum steps; max number of steps; recursion limit of; graphrecursion; \
         graph_recursion_limit; tool call limit; tool calls limit; tool_calls_limit; \
         maximum number of tool calls; max tool calls; request_limit of; max_llm_calls; \
         llm calls limit; maximum number of llm calls; max_rounds; maximum number of rounds; \
         max rounds; max_consecutive_auto_reply; exceeded your current quota; auto-replies; \
         auto_reply; auto-reply; allowed steps; allowed turns; allowed iterations; \
         allowed tool calls; of # steps; of # turns; out of turns; out of steps; \
         out of iterations; out of budget; out of tokens; |credits|; reduce the length; \
         reduce your prompt; reduce the number of tokens; over its limit of # usd; \
         over its limit of $; of $#; |overspent; max_budget; max budget; cost ceiling; \
         token quota; tokens left; tokens remaining; no tokens; token allowance; |allotment|; \
         depleted; tool-call limit; tool-calls limit; subscription required; \
         subscription has expired; subscription expired; # turns; # iterations; turns allowed; \
         steps allowed; iterations allowed; payment overdue; overdue; budgeted; over budget; \
         allowance; llm_calls; trial has ended; free tier * exhausted; quota * used up; used up",
        "per minute; per_minute; perminute; per-minute; per min; per second; per_second; \
         persecond; per day; per_day; perday; requests per; tokens per; |tpm|; |rpm|; |tpd|; \
         |rpd|; please wait before trying; disruption budget; retry budget; memory budget; \
         error budget; memory usage limit; string too long; array too long",
    ),
    row(
        "rate",
        Category::RateLimited,
        "http:429; rate limit; rate_limit; ratelimit; rate-limit; rate exceeded; \
         rate of requests; too many requests; too_many_requests; toomanyrequests; throttl; \
         slow down; slowdown; reduce your request rate; reduce your rate; reduce the rate; \
         requests per; per minute; per_minute; perminute; tokens per min; \
         provisionedthroughputexceeded; requestlimitexceeded; request limit exceeded; \
         quota exceeded; quotaexceeded; quota_exceeded; exceeded quota; exceeded*quota; \
         quota limit; quota for; resource_exhausted; resourceexhausted; resource exhausted; \
         resource has been exhausted; flood_wait; floodwait; flood control; concurrency limit; \
         concurrent requests; concurrent connections limit; request limit; api limit; |qps|; \
         enhance_your_calm; enhance your calm; please wait before trying; you are being limited; \
         limit reached for; error 1015; request_limit_exceeded; too quickly; too fast; back off; \
         hourly limit; daily limit; burst limit; quota reached; requests/min; req/min; req/s; \
         |rps|; /minute; /min|; calls/; requests/s; requests within; requests in; calls per; \
         too many calls",
        "exceeded quota:; disk quota; storage quota; storage_quota; message larger; \
         out of memory; |oom|; file descriptor; memory; already rate limited by design; \
         max number of clients; pool limit",
    ),
    row(
        "resource",
        Category::ResourceExhaustion,
        "out of memory; outofmemory; out-of-memory; out_of_memory; oomkill; oom-kill; oom kill; \
         |oom|; |memoryerror; cannot allocate memory; can't allocate memory; could not allocate; \
         failed to allocate; unable to allocate; bad_alloc; memory allocation; \
         allocation failed; alloc_failed; heap limit; java heap space; gc overhead limit; \
         memory limit; memory exhausted; memory_limit; allowed memory size; memory pressure; \
         metaspace; low on resource; evicted; |enomem; |enospc; no space left; not enough space; \
         insufficient disk; disk full; disk is full; disk quota; |edquot; storage quota; \
         storage_quota; |emfile; |enfile; too many open files; insufficient memory; \
         not enough memory; insufficient system resources; insufficient cpu; \
         insufficient nvidia; insufficient ephemeral; nodes are available; exceeded quota:; \
         can't start new thread; cannot create thread; cannot create new thread; \
         create new native thread; create native thread; failed to create thread; \
         can't create thread; resource temporarily unavailable; cannot fork; can't fork; \
         fork failed; unable to fork; pids limit; pids.max; process limit; too many processes; \
         too many threads; too many connections; too many clients; toomanyconnections; \
         connection slots; connection limit; max_connections; max_user_connections; \
         pool exhausted; pool*exhausted; poolexhausted; queuepool limit; pool is probably full; \
         pool is full; pooltimeout; connectionpooltimeout; connection from pool; \
         connection from the pool; acquiring a connection; acquire a connection; \
         acquiring connection; connection is not available; number of clients reached; \
         maxmemory; exit code 137; exit code: 137; exit status 137; exited with code 137; \
         exited with 137; exitcode 137; exitcode=137; (137); code=137; |code 137|; signal 9; \
         sigkill; signal: killed; signal: 9; rlimit; ulimit; file table overflow; \
         filesystem is full; file system is full; sqlite_full; flood stage; disk watermark; \
         read-only-allow-delete; circuit_breaking_exception; data too large; \
         es_rejected_execution; temp_file_limit; disk usage exceeded; ephemeral-storage; \
         exceeded memory; memory budget; could not extend file; queue is full; \
         rejectedexecution; inotify watches; no buffer space; |enobufs; insufficient gpu; \
         no free gpu; gpu memory; vram; exceeds memory; memory cgroup; resource limit; \
         cpu limit; thread pool is exhausted; address space; storagefull; insufficient storage; \
         http:507; insufficient resources; capacity exceeded; out of disk; out of inodes; \
         too much memory; resourcelimit; ran out of memory; |rss|; over limit #; \
         no more connections; connections allowed; max_client_conn; available memory; \
         pool timed out; pool timeout; no space; file descriptors; file handles; tmpfs full; \
         full disk; disk space; space left; out of space; out of disk space; disk usage; \
         memory usage; memory consumption; of memory; too many open; out of*handles; inodes; \
         swap; threads exhausted; workers are busy; all slots; no free slots; no workers left; \
         disk pressure; diskpressure; memorypressure; ran out of disk; ran out of space",
        "",
    ),
    row(
        "file_permission",
        Category::HandlerException,
        "|errno 13; |eacces; os error 13; |permissionerror:; operation not permitted; \
         read-only file system; |erofs; bash:*permission denied; sh:*permission denied; \
         mkdir:*permission denied; open /*permission denied; unauthorizedaccessexception; \
         failed to open stream: permission denied; filesystem*permission denied",
        "docker",
    ),
    row(
        "authentication",
        Category::AuthenticationError,
        "http:401; http:403; http:407; unauthorized; unauthorised; unauthenticated; forbidden; \
         authentication failed; authentication_error; authenticationerror; authenticationfailed; \
         authentication failure; authentication error; authentication required; authenticate; \
         authentication is required; authentication token; authentication credentials; \
         authenticationexception; autherror; auth error; auth failed; not authenticated; \
         invalid api key; invalid api-key; invalid apikey; incorrect api key; invalid_api_key; \
         api key not valid; api_key_invalid; invalid x-api-key; api key expired; \
         api key has expired; missing api key; no api key; api key is missing; api key missing; \
         api_key client option; api key*invalid; api key*revoked; api key*disabled; api token; \
         api key*required; did not find*api_key; apikeyerror; bad credentials; \
         invalid credentials; invalid credential; invalidcredentials; credentials*expired; \
         credentials*invalid; wrong credentials; incorrect credentials; \
         could not load credentials; locate credentials; load credentials; nocredential; \
         no credentials; credentials were not; credential unavailable; credentialunavailable; \
         default credentials; missing credentials; token expired; token has expired; \
         token is expired; expired token; expiredtoken; expired_token; token*expired; \
         token*revoked; token_revoked; jwt expired; jwt malformed; invalid jwt; invalid_token; \
         invalid token; token is invalid; token is not valid; invalid access token; \
         invalid bearer; bearer token; invalid_grant; invalid_client; refresh token; \
         security token; signaturedoesnotmatch; signature we calculated; signature has expired; \
         signature verification failed; invalid signature; signature is invalid; \
         signature mismatch; signature*does not match; invalidsignature; access denied; \
         accessdenied; access_denied; access_refused; not authorized; notauthorized; \
         not authorised; permission denied; permission_denied; permissiondenied; \
         permission_error; insufficient permission; insufficientpermission; \
         insufficient_permission; insufficient scope; insufficient_scope; \
         insufficient privilege; insufficientprivilege; insufficient authentication; \
         do not have access; does not have access; don't have access; doesn't have access; \
         not have permission; does not have*access; does not have*permission; lacks permission; \
         missing permission; missing scope; missing_scope; required scope; required permission; \
         required role; not_authed; invalid_auth; login failed; login required; login incorrect; \
         logon failure; wrongpass; |noauth|; |noperm|; sasl auth; publickey; \
         could not read username; could not read password; password auth; invalid password; \
         incorrect password; wrong password; http basic: access denied; requires authentication; \
         session expired; session has expired; consent_required; interaction_required; aadsts; \
         unrecognizedclient; invalidclienttokenid; authorizationerror; authorizationexception; \
         authorization failed; authorization failure; authorization required; \
         authorizationfailed; unauthorizedoperation; not allowed to perform; kerberos; \
         sso session; |oauth; mfa required; invalid login; no pg_hba.conf entry; \
         role*does not exist; groupauthorization; topicauthorization; invalid username; \
         username/password; username and password; username or password; user name or password; \
         logon denied; credential; no access to; no permission; insufficient rights; \
         access is denied; access token; key is invalid; invalid key; key*rejected; \
         rejected*key; key*not accepted; key*has expired; key*expired; token*rejected; \
         signed out; |sign in; please log in; log in again; subscription key; _key is not set; \
         _token is not set; key not set; key is not set; token is not set; _key not set; \
         _key environment; _token environment; secret is not set; no token; missing token; \
         token missing; token is missing; token not found; key not found in environment; \
         not logged in; user*not allowed; account*locked; user*not permitted; permissions to; \
         access*forbidden; api key; api-key; apikey; account is disabled; \
         account has been suspended; account*suspended; account*deactivated; deactivated; \
         host key verification; |2fa|; certificate required",
        "not well-formed; authenticated successfully; html parser",
    ),
    row(
        "shape",
        Category::ValidationError,
        "missing field `; unknown field; unknown variant `; duplicate field `; invalid type:; \
         invalid value:; cannot unmarshal; cannot deserialize value; mismatchedinput; \
         unrecognizedproperty; unrecognized field; is a required property; required property; \
         validation error; validationerror; validation_error; validationexception; \
         validation failed; validation failure; validationfailed; failed validation; \
         failed schema; schema validation; zoderror; field required; invalid_type; schemaerror; \
         jsonschema; does not match*schema; not match the schema; not conform; schema violation; \
         schema mismatch; invalidschema; constraintviolation; methodargumentnotvalid; \
         additional properties; additionalproperties; extra inputs; extra fields; \
         extra_forbidden; input should be; unable to infer; is not of type; is not one of",
        "invalid json; json_invalid; outputparser; output parser; failed to parse; \
         could not parse; jsondecode; not valid json",
    ),
    row(
        "parse",
        Category::ParsingError,
        "jsondecodeerror; json.decoder; expecting value; expecting property name; \
         expecting ',' delimiter; expecting ':' delimiter; unterminated string; \
         unexpected token; unexpected end of json; unexpected end of input; \
         unexpected non-whitespace; unexpected eof while parsing; unexpected eof while scanning; \
         end-of-input; end-of-file; jsoneof; expected `}`; expected '}'; expected ')'; \
         expected `)`; expected identifier; expected expression; within the same entity; \
         xml document; to parse; parsable; parseable; not closed; never closed; instead of json; \
         instead of a json; rather than json; expected json; as json; into json; no fenced; \
         code fence; code block; not readable; unreadable; garbled; unexpected character; \
         unexpected symbol; unexpected identifier; invalid json; json_invalid; not valid json; \
         not json; valid json; malformed; in json at; json parse; json.parse; jsonparse; \
         json_parse; jsonsyntax; json syntax; jsonexception; json error; json:; jsonreader; \
         jsonprocessing; json::; error parsing; parse error; parseerror; parser error; \
         parsererror; parser::; parsing error; parsing failed; parse failure; parseexception; \
         parsing exception; failed to parse; failed parsing; failure to parse; could not parse; \
         couldn't parse; cannot parse; can't parse; unable to parse; not parse; \
         cannot be parsed; could not be parsed; can not be parsed; unparseable; unparsable; \
         outputparser; output parser; looking for beginning of; invalid character; \
         eof while parsing; expected value at line; expected `,`; expected `:`; \
         expected ident at line; key must be a string; trailing characters; trailing comma; \
         trailing data; extra data; control character; yaml.; yaml:; yaml_; yamlexception; \
         yamlerror; invalid yaml; yaml syntax; yaml parse; yaml pars; scannererror; \
         did not find expected; mapping values are not allowed; cannot start any token; \
         could not find expected; error tokenizing data; csv.error; csv error; malformedcsv; \
         csv::; csv:; csvparse; invalid csv; wrong number of fields; line contains nul; \
         xmlsyntax; xml syntax; not well-formed; not well formed; saxparse; xml::; \
         premature end; invalid byte; found `}`; found `)`; found `{`; incompletejson; -32700; \
         invalid expression; cannot read the; saxexception; unexpected byte; unexpected end; \
         end of buffer; end of document; answer> tag; no closing; document is empty; xmlparse; \
         xml parse; xml pars; xmlexception; invalid xml; mismatched tag; no element found; \
         start tag expected; premature end of file; tag mismatch; unclosed token; unicodedecode; \
         unicodeencode; can't decode; cannot decode; could not decode; unable to decode; \
         failed to decode; error decoding; decode error; |decodeerror; decoding error; \
         decoding failed; decodingerror; decoderexception; undecodable; invalid utf-8; \
         invalid utf8; valid utf-8; valid utf8; invalid byte sequence; malformedinput; \
         invalid base64; incorrect padding; illegal base64; base64 decod; binascii.error; \
         valid base64; invalid base-64; base-64 string; wire type; invalid wire; \
         invalidprotocolbuffer; protobuf pars; truncated message; badzipfile; not a zip file; \
         incorrect header check; gzipped file; gzip: invalid header; invalid gzip; \
         not in gzip format; zlib.error; unpickling; msgpack; |avro; cbor decode; \
         failed to deserialize; deserialization error; deserialization failed; deserialize; \
         deserializationexception; serializationexception; error deserializ; cannot deserialize; \
         invalid literal for; could not convert string to float; could not convert string to; \
         numberformatexception; not in a correct format; not recognized as a valid; \
         formatexception; does not match format; invalid isoformat; datetimeparse; parsing time; \
         strconv.; parseint; parsefloat; parsedate; invalid digit found; invalid float literal; \
         syntax error; sql syntax; sqlsyntax; sql parse; tomldecode; toml parse; tomlerror; \
         invalid toml; toml:; pdfread; pdfsyntax; pdf header; eof marker; \
         cannot identify image file; unidentifiedimage; image file is truncated; \
         invalid data found when processing; invalid image; corrupt; did not return valid; \
         no valid json; no json object; no json; lexer error; unrecognized token; \
         invalid escape; bad escape; bad control character; illegal character; invalid unicode; \
         unbalanced; unclosed; unterminated; missing closing; unmatched; unexpected tag; \
         expected*action:; invalid format:; invalid or incomplete multibyte; expected*delimiter; \
         could not extract; bad magic number; invalid magic",
        "authorization header; jwt malformed; no json web; undefined behavior; connection reset; \
         connection refused",
    ),
];
