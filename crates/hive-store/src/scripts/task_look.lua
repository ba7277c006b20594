#!lua flags=allow-oom
--[[
task_look: what a shard knows of a task or tracked message; a row whose entry is lost is removed.

Why one script: an entry that is delivered or settled between two looks would pass for lost, and its
task be done once more.

KEYS
  1 tasks  hash    dispatch key -> `open <s|a> <lane ref>|<id>`, `acked`, or
                   `ended <outcome> <settled id>`
  2.. of an open row its lane's stream
ARGV
  1 group         name
  2 dispatch_key  text
  3 ref           ref     lane that the row named when the caller looked, "" for none
RETURNS  { status, detail, count }
  UNKNOWN  "", 0            there is no row, or none any more: its entry was lost with data
  WAITING  "", 0            it is in its lane, or waits to be delivered again
  LEASED   consumer, count  it is worked on, delivered so many times
  ACKED    "", 0            handled; its signal is waited for
  ENDED    outcome, 0       decided
  MOVED    ref, 0           the row names another lane; nothing was written
IDEMPOTENT  yes
COST        O(1), and the entry's body
INVARIANTS  M1 (what is lost is told, not waited for), T1
]]
local group, key = ARGV[1], ARGV[2]
local row = redis.call('HGET', KEYS[1], key)
if not row then return { 'UNKNOWN', '', 0 } end
if row == 'acked' then return { 'ACKED', '', 0 } end
local outcome = string.match(row, '^ended (%S+) ')
if outcome then return { 'ENDED', outcome, 0 } end
local ref, id = string.match(row, '^open %a (.*)|(.-)$')
if ref ~= ARGV[3] then return { 'MOVED', ref or '', 0 } end

-- A lane that lost its group holds nothing that is pending, and gets it back at its oldest entry.
local rows = redis.pcall('XPENDING', KEYS[2], group, id, id, 1)
local pending = not rows.err and rows[1]
if pending and string.sub(pending[2], 1, 1) ~= '~' then
  return { 'LEASED', pending[2], pending[4] }
end
if pending then return { 'WAITING', '', 0 } end
if redis.call('XRANGE', KEYS[2], id, id)[1] then
  local function parts(text)
    local ms, seq = string.match(text, '^(%d+)-(%d+)$')
    return tonumber(ms), tonumber(seq)
  end
  local ms, seq = parts(id)
  local was_read = false
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[2])) do
    local last_ms, last_seq = parts(info[8])
    if info[2] == group then was_read = ms < last_ms or ms == last_ms and seq <= last_seq end
  end
  if not was_read then return { 'WAITING', '', 0 } end
end
redis.call('HDEL', KEYS[1], key)
return { 'UNKNOWN', '', 0 }
