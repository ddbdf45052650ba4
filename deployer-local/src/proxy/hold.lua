-- Holds a connection or request while its backend has no server that may take it, so that the replacement of a
-- service's only instance is a pause and not an error. Costs nothing while there is a server: see the `if nbsrv eq 0`.
local function hold(millis)
  return function(txn)
    local waited = 0
    while waited < millis and txn.f:nbsrv() == 0 do
      core.msleep(10)
      waited = waited + 10
    end
  end
end
core.register_action("hold_request", { "http-req" }, hold(5000), 0)
core.register_action("hold_connection", { "tcp-req" }, hold(15000), 0)
