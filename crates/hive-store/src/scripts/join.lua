#!lua flags=allow-oom
--[[
join: make a consumer a member of its group, or attach a new connection of it.

Why one script: the fence of an old session, the limit of members and the new attach number are
decided on one state; two processes under one id never both believe that they hold it.

KEYS
  1 groups   hash    group -> `<state> <version>`
  2 members  hash    consumer -> `<session> <attach> <kind> <gateway> <concurrency> <ms> <caps>
                     <lease> <pod> <session before>`
ARGV
  1 group          name
  2 consumer       name
  3 session        text    24 hex digits: the caller's, or newly minted for a first join
  4 resume         0|1     1 when the session was answered by an earlier join
  5 kind           stream|pull
  6 gateway        id      incarnation, or `-` for a pull consumer
  7 concurrency    u53
  8 capabilities   text    sorted names with commas between, or `-`
  9 max_consumers  u53     most members
  10 lease_ms      u53     the lease that it is told: it sends heartbeats by it until it joins again
  11 now_ms        u53     0, or the time instead of Redis' own (tests)
  12 pod           text    the pod that it runs in, or `-`
  13 next          text    24 hex digits, newly minted: where a resumed session is no member any
                           more it is followed by this one; `-` for no resume
RETURNS  { status, detail, ... }
  JOINED   session, attach  a new member, or a new session that fences the old one out
  RESUMED  session, attach  the same session, or the one that followed it, on a new connection; for
                            pull the session it has
  FULL     members          the group has its limit
  ATTACHED gateway          a pull call for a consumer that is attached by stream
  LOST     ""               the name is another session's by now
  GONE     ""               the group is absent or being deleted
IDEMPOTENT  yes for pull; a repeated stream join raises the attach number
COST        O(1)
INVARIANTS  E1 (fencing)
]]
local state = redis.call('HGET', KEYS[1], ARGV[1])
if not state or string.sub(state, 1, 8) == 'deleting' then return { 'GONE', '' } end
local now = tonumber(ARGV[11])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local consumer, session, kind, before = ARGV[2], ARGV[3], ARGV[5], '-'
local status, attach = 'JOINED', 1
local row = redis.call('HGET', KEYS[2], consumer)
if row then
  local held, number, held_kind, gateway = string.match(row, '^(%S+) (%d+) (%S+) (%S+) ')
  if kind == 'pull' then
    if held_kind == 'stream' then return { 'ATTACHED', gateway } end
    session, attach, status = held, 0, 'RESUMED'
  elseif held == session then
    attach, status = tonumber(number) + 1, 'RESUMED'
  elseif ARGV[4] == '1' then
    -- Where the answer was lost that named the session behind its own, it asks with its own again.
    if string.match(row, '^' .. string.rep('%S+ ', 9) .. '(%S+)$') ~= session then
      return { 'LOST', '' }
    end
    session, before = held, session
    attach, status = tonumber(number) + 1, 'RESUMED'
  end
else
  -- Joined as new under the old session, its attach numbers would begin anew: a slow old gateway
  -- would pass for the new one.
  if ARGV[4] == '1' then session, before = ARGV[13], session end
  local members = redis.call('HLEN', KEYS[2])
  if members >= tonumber(ARGV[9]) then return { 'FULL', tostring(members) } end
end
if kind == 'pull' then attach = 0 end
redis.call('HSET', KEYS[2], consumer, string.format('%s %.0f %s %s %s %.0f %s %s %s %s',
  session, attach, kind, ARGV[6], ARGV[7], now, ARGV[8], ARGV[10], ARGV[12], before))
return { status, session, tostring(attach) }
