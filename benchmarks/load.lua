-- Closed-loop load for wrk:  wrk -t1 -c16 -d8s -s load.lua URL -- BODIES SALT
-- BODIES holds one JSON body per line. Every "@@" becomes three characters that differ from request
-- to request, so that no cache can answer for the encoder. SALT sets where the counting starts.
local alphabet = {}
for char in ("的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多定行学法所民得经"):gmatch("[%z\1-\127\194-\244][\128-\191]*") do
  alphabet[#alphabet + 1] = char
end

local bodies, position, serial = {}, 0, 0

function init(args)
  for line in io.lines(args[1]) do bodies[#bodies + 1] = line end
  position = (tonumber(args[2]) * 7919) % #bodies
  serial = tonumber(args[2]) * 104729
end

local function fresh()
  serial = serial + 1
  local n, base = serial, #alphabet
  return alphabet[n % base + 1] .. alphabet[math.floor(n / base) % base + 1] .. alphabet[math.floor(n / base / base) % base + 1]
end

function request()
  position = position % #bodies + 1
  local body = bodies[position]:gsub("@@", fresh)
  return wrk.format("POST", nil, { ["content-type"] = "application/json" }, body)
end

function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format('{"requests":%d,"seconds":%.4f,"mean_ms":%.3f,"p50_ms":%.3f,"p95_ms":%.3f,"p99_ms":%.3f,"failed":%d}\n',
    summary.requests, summary.duration / 1e6, latency.mean / 1e3, latency:percentile(50) / 1e3, latency:percentile(95) / 1e3,
    latency:percentile(99) / 1e3, e.status + e.timeout + e.read + e.write + e.connect))
end
