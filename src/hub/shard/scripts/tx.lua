-- ARGV: the attachment, the epoch, the transaction as JSON: op, guards, writes, sends, reads.
local node, known, tx = ARGV[1], ARGV[2], cjson.decode(ARGV[3])
if not row(node) or epoch() ~= known then return 'FENCED' end
local last = tonumber(row(node))
if tx.op <= last then return 'TAKEN' end
if tx.op > last + 1 then return 'REWOUND' end
redis.call('HSET', key('op'), node, whole(tx.op))

-- Appends a message of a transaction, with its number in the inbox; an inbox that does not exist receives nothing.
local function place(to, ...)
  if row(to) then
    local at = redis.call('HINCRBY', key('placed'), to, 1)
    redis.call('XADD', key('in:' .. to), '*', 'p', at, ...)
  end
end

local is_done = true
for _, guard in ipairs(tx.guards) do
  if (redis.call('HGET', key(guard[1]), guard[2]) or '') ~= guard[3] then is_done = false end
end
local seq = number('seq')
if is_done and #tx.writes > 0 then
  seq = seq + 1
  set('seq', whole(seq))
  for _, write in ipairs(tx.writes) do
    local name, field, value = key(write[1]), write[2], write[3]
    if value == '$seq' then value = whole(seq) end
    if field == '' then redis.call('DEL', name)
    elseif value == '' then redis.call('HDEL', name, field)
    else redis.call('HSET', name, field, value) end
  end
end
local reads = {}
if not is_done or #tx.writes == 0 then
  for _, name in ipairs(tx.reads) do
    -- The name comes first, so that no list is empty.
    local fields = { name }
    for _, text in ipairs(redis.call('HGETALL', key(name))) do fields[#fields + 1] = text end
    reads[#reads + 1] = fields
  end
end
if is_done then
  for _, send in ipairs(tx.sends) do place(send[1], 's', whole(seq), 'b', send[2]) end
end
place(node, 's', whole(seq), 'o', whole(tx.op), 'k', is_done and '1' or '0', 'r',
  (#reads > 0) and cjson.encode(reads) or '[]')
return 'TAKEN'
