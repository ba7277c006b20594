#!lua flags=allow-oom
--[[
letter_take: store a dead letter of a namespace, once.

Why one script: a record, its places in the indexes and what is counted of it are one thing; and a
bound that is checked apart is none.

KEYS
  1 letter    hash    the record: `body`, `facts`, `state`, `status`, `version`, `history`, `bytes`,
                      `example`; `edited` where a replay sends another payload
  2 gone      zset    records that were removed lately, by when
  3 totals    hash    `records`, `bytes`, `s:<status>`; of the live ones `live`, `dead_ms` (summed),
                      `c:<category>`, `g:<group>`, `r:<stream>`
  4 patterns  zset    fingerprint -> live records
  5 examples  hash    fingerprint -> what it is, as the first of its records says
  6 sources   zset    `<group>/<consumer>` -> live records
  7 due       zset    records that go back by themselves, by when
  8 live      zset    live records by when they died
  9.. indexes zset    the records of one value each, by when they died
ARGV
  1 id           text
  2 records_max  u53
  3 bytes_max    u53
  4 dead_ms      u53
  5 status       text
  6 category     text
  7 group        text
  8 stream       text
  9 fingerprint  text
  10 source      text    `<group>/<consumer>`, or empty
  11 example     text
  12 due_ms      u53     0 for none
  13 body        bytes
  14 facts       json
  15 state       json
  16 change      json    first line of its history
RETURNS  { status, detail }
  TAKEN  ""       stored
  KNOWN  status   it is there, or was removed lately (`gone`); nothing was written
  FULL   records|bytes  which bound is reached; nothing was written
IDEMPOTENT  yes: the second call answers KNOWN
COST        25 us
INVARIANTS  D3 (a dead delivery has one record)
]]
if redis.call('ZSCORE', KEYS[2], ARGV[1]) then return { 'KNOWN', 'gone' } end
local known = redis.call('HGET', KEYS[1], 'status')
if known then return { 'KNOWN', known } end
local bytes = #ARGV[11] + #ARGV[13] + #ARGV[14] + #ARGV[15] + #ARGV[16]
local totals = redis.call('HMGET', KEYS[3], 'records', 'bytes')
if tonumber(totals[1] or 0) >= tonumber(ARGV[2]) then return { 'FULL', 'records' } end
if tonumber(totals[2] or 0) + bytes > tonumber(ARGV[3]) then return { 'FULL', 'bytes' } end

redis.call('HSET', KEYS[1], 'body', ARGV[13], 'facts', ARGV[14], 'state', ARGV[15], 'status',
  ARGV[5], 'version', '1', 'history', ARGV[16], 'bytes', bytes, 'example', ARGV[11])
for i = 9, #KEYS do redis.call('ZADD', KEYS[i], ARGV[4], ARGV[1]) end
redis.call('HINCRBY', KEYS[3], 'records', 1)
redis.call('HINCRBY', KEYS[3], 'bytes', bytes)
redis.call('HINCRBY', KEYS[3], 's:' .. ARGV[5], 1)
redis.call('ZADD', KEYS[8], ARGV[4], ARGV[1])
redis.call('HINCRBY', KEYS[3], 'live', 1)
redis.call('HINCRBY', KEYS[3], 'dead_ms', ARGV[4])
for mark, value in pairs({ c = ARGV[6], g = ARGV[7], r = ARGV[8] }) do
  redis.call('HINCRBY', KEYS[3], mark .. ':' .. value, 1)
end
redis.call('ZINCRBY', KEYS[4], 1, ARGV[9])
redis.call('HSETNX', KEYS[5], ARGV[9], ARGV[11])
if ARGV[10] ~= '' then redis.call('ZINCRBY', KEYS[6], 1, ARGV[10]) end
if ARGV[12] ~= '0' then redis.call('ZADD', KEYS[7], ARGV[12], ARGV[1]) end
return { 'TAKEN', '' }
