#!lua flags=allow-oom
--[[
handover_advance: note up to which record of a shard has been taken over.

Why one script: a router that was slow must not take back what another one has noted; what is noted
is what may be deleted. Where Redis came back with less than it had, the caller began further on
than what is noted: records between have lost what they led to, and must not be passed over.

KEYS
  1 applied  hash    `id` -> the last record that was applied
ARGV
  1 id    id
  2 from  id  behind which the caller read; `0-0` at first
RETURNS  { status, id }
  SET     id  it is noted
  KEPT    id  this one was noted before, and is not older; nothing was written
  BEHIND  id  this one is noted, and is older than `from`: read on behind it; nothing was written
IDEMPOTENT  yes: the second call answers KEPT
COST        O(1)
INVARIANTS  T2 (one outcome for a dispatch key), D3 (a dead delivery has one record)
]]
local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end
local before = redis.call('HGET', KEYS[1], 'id') or '0-0'
local ms, seq = parts(ARGV[1])
local before_ms, before_seq = parts(before)
local from_ms, from_seq = parts(ARGV[2])
if before_ms < from_ms or before_ms == from_ms and before_seq < from_seq then
  return { 'BEHIND', before }
end
if ms < before_ms or ms == before_ms and seq <= before_seq then return { 'KEPT', before } end
redis.call('HSET', KEYS[1], 'id', ARGV[1])
return { 'SET', ARGV[1] }
