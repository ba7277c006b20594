#!lua flags=allow-oom
--[[
scaling_write: store how many consumers groups are to have, and what the owner remembers of them.

Why one script: between a check of the epoch and the write another coordinator may become the owner;
its decision would be overwritten by an older one. What is stored is told and noted in one step.

KEYS
  1 scaling  hash    as in scaling_claim; its name is the channel where a change is told
  2 events   stream  group -> event, the last 10,000 or a few more
ARGV
  1 owner   id      the coordinator
  2 now_ms  u53     0, or the time instead of Redis' own (tests)
  3.. sections of (group, epoch, desired, asked, state, n), behind each n events; all at most once
      in a call
RETURNS  { status, verdicts }
  OK  a letter per section: `w` written, `f` fenced: the row is absent, of another epoch or of
      another owner, and nothing of the section was done
IDEMPOTENT  yes: events that are there word for word since an equal row was written are not added
            again
COST        O(size of the rows), 6 us a group; an equal row with events reads those since it
INVARIANTS  S1 (a scaling row changes under its epoch and owner), E1 (fencing)
]]
local owner, now = ARGV[1], tonumber(ARGV[2])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local since = {}
-- Events of a group that were added since a time: a call has at most 256.
local function known(group, ms)
  if not since[ms] then since[ms] = redis.call('XRANGE', KEYS[2], ms, '+', 'COUNT', 512) end
  local found = {}
  for _, entry in ipairs(since[ms]) do
    if entry[2][1] == group then found[entry[2][2]] = true end
  end
  return found
end

local at, verdicts = 3, {}
while at <= #ARGV do
  local group, desired, n = ARGV[at], ARGV[at + 2], tonumber(ARGV[at + 5])
  local row = redis.call('HGET', KEYS[1], group) or ''
  local epoch, held, rest = string.match(row, '^(%d+) (%S+) (.*)$')
  if epoch ~= ARGV[at + 1] or held ~= owner then
    verdicts[#verdicts + 1] = 'f'
  else
    local decided, before, others = string.match(rest, '^(%d+) (%S+) (.*)$')
    local wanted = ARGV[at + 3] .. ' ' .. ARGV[at + 4]
    local events, is_repeated = {}, before == desired and others == wanted and n > 0
    local there = is_repeated and known(group, decided) or {}
    for i = 1, n do
      local event = ARGV[at + 5 + i]
      if not there[event] then events[#events + 1] = event end
    end
    if not is_repeated or #events > 0 then
      redis.call('HSET', KEYS[1], group,
        string.format('%s %s %.0f %s ', epoch, owner, now, desired) .. wanted)
      for _, event in ipairs(events) do
        redis.call('XADD', KEYS[2], 'MAXLEN', '~', 10000, '*', group, event)
      end
      if before ~= desired then redis.call('PUBLISH', KEYS[1], group .. ' ' .. desired) end
    end
    verdicts[#verdicts + 1] = 'w'
  end
  at = at + 6 + n
end
return { 'OK', table.concat(verdicts) }
