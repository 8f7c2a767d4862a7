-- ARGV: the new attachment, the earlier one, the epoch that the shard knows, whether the engine lost transactions (1).
local node, old, known, is_rewound = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local time = now()
note_outage(time)
if epoch() == '' or (is_rewound == '1' and known == epoch()) then
  set('epoch', node)
  set('since', whole(time))
end
if old ~= '' then fence(old, time + TTL) end
redis.call('DEL', key('in:' .. node))
-- An inbox that exists and is empty: messages outside of transactions are appended only to an inbox that exists.
redis.call('XADD', key('in:' .. node), '1-0', 'b', '')
redis.call('XDEL', key('in:' .. node), '1-0')
redis.call('HSET', key('op'), node, '0')
redis.call('HSET', key('beats'), node, whole(time))
redis.call('HSET', key('placed'), node, '0')
return { epoch(), (time - number('since') < YOUNG) and 1 or 0 }
