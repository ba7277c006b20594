#!lua flags=allow-oom
--[[
run_inputs: what the messages of tasks say, and what they get from the tasks before them.

Why one script: a thousand tasks that start together would cost a thousand round trips.

KEYS
  1 contents  hash  task number -> what its message says
  2 results   hash  task number -> result
  3 answers   hash  task number -> question and answer of a task that asked for input
ARGV
  1 each_max   u53  a longer result is left out, in bytes
  2 all_max    u53  results of one task together, in bytes; those behind are left out
  3 task_count u53  tasks that follow
  4.. per task its number, how many dependencies it has, and their numbers
RETURNS  { status, tasks }
  OK  per task { content, answer, results }; of a result that is left out `-`, of one that is not
      there ``, else `+` and its bytes. Fewer tasks than asked for where 4 MiB are reached: ask for
      the others again
IDEMPOTENT  yes: it reads
COST        O(tasks + dependencies)
INVARIANTS  W1 (a run is stored whole)
]]
local each_max, all_max = tonumber(ARGV[1]), tonumber(ARGV[2])
local tasks, room, at = {}, 4194304, 3
for t = 1, tonumber(ARGV[3]) do
  if room <= 0 then break end
  local task, count = ARGV[at + 1], tonumber(ARGV[at + 2])
  local content = redis.call('HGET', KEYS[1], task) or ''
  local answer = redis.call('HGET', KEYS[3], task) or ''
  local results, left = {}, all_max
  for d = 1, count do
    local size = redis.call('HSTRLEN', KEYS[2], ARGV[at + 2 + d])
    if size == 0 then
      results[d] = ''
    elseif size > each_max or size > left then
      results[d] = '-'
    else
      results[d] = '+' .. redis.call('HGET', KEYS[2], ARGV[at + 2 + d])
      left = left - size
    end
  end
  tasks[t] = { content, answer, results }
  room = room - #content - #answer - (all_max - left)
  at = at + 2 + count
end
return { 'OK', tasks }
