#!lua flags=allow-oom
--[[
run_delete: forget a run that has ended.

Why one script: a run that is half forgotten would be found and could not be read; one that was
revived meanwhile must stay.

KEYS
  1 ids       hash    workflow id -> `<run id> <digest>` of its newest run
  2 head      hash    the run's head
  3 runs      zset    run ids by creation time
  4 current   zset    run ids of its status, by creation time
  5 timers    zset    run ids by when they must be looked at
  6 finished  zset    run ids by when they ended
  7.. the other keys of the run
ARGV
  1 workflow_id  name
  2 run_id       name
  3 version      u53     of the state that was seen to have ended
RETURNS  { status }
  OK        forgotten
  CONFLICT  the state is another; nothing was written
  GONE      there is no such run; nothing was written
IDEMPOTENT  yes: the second call answers GONE
COST        O(keys); Redis frees their memory behind it
INVARIANTS  W1 (a run is stored whole)
]]
local version = redis.call('HGET', KEYS[2], 'version')
if not version then return { 'GONE' } end
if version ~= ARGV[3] then return { 'CONFLICT' } end
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known and string.match(known, '^(%S+) ') == ARGV[2] then
  redis.call('HDEL', KEYS[1], ARGV[1])
end
for _, key in ipairs({ KEYS[3], KEYS[4], KEYS[5], KEYS[6] }) do redis.call('ZREM', key, ARGV[2]) end
redis.call('UNLINK', KEYS[2])
for k = 7, #KEYS do redis.call('UNLINK', KEYS[k]) end
return { 'OK' }
