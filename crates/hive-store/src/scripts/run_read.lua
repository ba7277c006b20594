#!lua flags=allow-oom
--[[
run_read: a run as it lies in Redis.

Why one script: head, states and notes are written together; read one after the other, with a step
in between, they would show a state that never was.

KEYS
  1 head    hash    the run's head
  2 plan    string  its definition, without payloads
  3 states  string  a record of fixed length per task
  4 notes   hash    task number -> texts of its state
ARGV
  1 with_plan  word   `1` the definition too, `0` it is known
RETURNS  { status, head, plan, states, notes }
  OK    the four, hashes as flat lists; the plan is empty where it was not asked for
  GONE  four times nothing: there is no such run
IDEMPOTENT  yes: it reads
COST        O(tasks)
INVARIANTS  W1 (a run is stored whole)
]]
local head = redis.call('HGETALL', KEYS[1])
if #head == 0 then return { 'GONE', {}, '', '', {} } end
return { 'OK', head, ARGV[1] == '1' and redis.call('GET', KEYS[2]) or '',
  redis.call('GET', KEYS[3]) or '', redis.call('HGETALL', KEYS[4]) }
