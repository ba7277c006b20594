#!lua flags=allow-oom
--[[
extend: start the leases of deliveries anew.

Why one script: XCLAIM takes an entry from whoever has it; only behind a check of the owner in the
same step is it an extension and not a theft.

KEYS
  1 members   hash    consumer -> `<session> <attach> ...`
  2.. lane streams
ARGV
  1 group          name
  2 section_count  u53     sections that follow
  3.. sections of (lane_no, consumer, session, attach, n), behind each n items of (id, count);
      attach 0 stands for a pull consumer, whose session alone is checked
RETURNS  { status, detail }
  OK  verdicts  a letter per item: `o` extended, `g` not pending here, `s` the lease is another's,
                `f` the name is another session's, `n` the session is no member any more, or has a
                newer connection: it joins again
IDEMPOTENT  yes: it only moves a deadline
COST        one XPENDING and one XCLAIM a section
INVARIANTS  M6 (only the lease's holder settles), E1 (fencing)
]]
local group, at = ARGV[1], 2
local verdicts = {}
for _ = 1, tonumber(ARGV[2]) do
  local lane, consumer, session = KEYS[1 + tonumber(ARGV[at + 1])], ARGV[at + 2], ARGV[at + 3]
  local attach, n = ARGV[at + 4], tonumber(ARGV[at + 5])
  local row = redis.call('HGET', KEYS[1], consumer)
  local held_session, held_attach = string.match(row or '', '^(%S+) (%d+) ')
  local fresh = held_session == session and (attach == '0' or held_attach == attach)
  local counts = {}
  if fresh and n > 2 then
    local rows = redis.call('XPENDING', lane, group, ARGV[at + 6], ARGV[at + 4 + 2 * n],
      n + 64, consumer)
    for _, found in ipairs(rows) do counts[found[1]] = found[4] end
  end
  local good = {}
  for i = 1, n do
    local id, count = ARGV[at + 4 + 2 * i], tonumber(ARGV[at + 5 + 2 * i])
    local verdict = fresh and 'o' or row and held_session ~= session and 'f' or 'n'
    if fresh and counts[id] ~= count then
      local found = redis.call('XPENDING', lane, group, id, id, 1)[1]
      if not found then
        verdict = 'g'
      elseif found[2] ~= consumer or found[4] ~= count then
        verdict = 's'
      end
    end
    if verdict == 'o' then good[#good + 1] = id end
    verdicts[#verdicts + 1] = verdict
  end
  if #good > 0 then
    good[#good + 1] = 'JUSTID'
    redis.call('XCLAIM', lane, group, consumer, 0, unpack(good))
  end
  at = at + 5 + 2 * n
end
return { 'OK', table.concat(verdicts) }
