// npm ocpp-rpc on both sides of the daemon, in strict mode: every payload is checked by the official schemas, in both
// directions. Says its port, hears the daemon's, prints one line per check.
"use strict";

const readline = require("node:readline");
const { RPCClient, RPCServer, createValidator } = require("ocpp-rpc");

const version = process.argv[2];
const protocol = `ocpp${version}`;
const two = version !== "1.6";
// Version 2.2.1 of the package carries the schemas of 2.1 under ids that it does not look for: they are given to it
// under those that it does.
const renamed = () => require("ocpp-rpc/lib/schemas/ocpp2_1.json").map((schema) => ({
    ...schema, $id: schema.$id.replace(/Request$/, ".req").replace(/Response$/, ".conf"),
}));
const strict = version === "2.1"
    ? { strictMode: [protocol], strictModeValidators: [createValidator(protocol, renamed())] }
    : { strictMode: true };
const check = (what, good) => console.log(`${what}\t${good ? "yes" : "NO"}`);

async function main() {
    const heard = [];
    let arrived;
    const connected = new Promise((resolve) => (arrived = resolve));
    const server = new RPCServer({ protocols: [protocol], ...strict });
    server.on("client", (client) => {
        client.on("strictValidationFailure", (failure) => check(`backend: ${failure.error.message}`, false));
        client.handle("BootNotification", () => ({
            status: "Accepted", interval: 300, currentTime: new Date().toISOString(),
        }));
        client.handle("Heartbeat", () => ({ currentTime: new Date().toISOString() }));
        client.handle(({ method, params }) => {
            heard.push([method, params]);
            return {};
        });
        arrived(client);
    });
    const http = await server.listen(0, "127.0.0.1");
    console.log(http.address().port);
    const line = await new Promise((resolve) => readline.createInterface({ input: process.stdin }).once("line", resolve));

    const station = new RPCClient({
        endpoint: `ws://127.0.0.1:${line}`, identity: "RPC", protocols: [protocol], ...strict,
    });
    let limited;
    const limit = new Promise((resolve) => (limited = resolve));
    station.on("strictValidationFailure", (failure) => check(`station: ${failure.error.message}`, false));
    station.handle("SetChargingProfile", ({ params }) => {
        limited(params);
        return { status: "Accepted" };
    });
    station.handle("TriggerMessage", () => ({ status: "NotImplemented" }));
    station.handle("Reset", () => ({ status: "Accepted" }));
    await station.connect();
    check("strict: one subprotocol on both legs", station.protocol === protocol);
    const boot = two
        ? { reason: "PowerUp", chargingStation: { model: "M", vendorName: "V" } }
        : { chargePointModel: "M", chargePointVendor: "V" };
    check("strict: boot", (await station.call("BootNotification", boot)).status === "Accepted");
    check("strict: our limit by the schema", Boolean(await limit));
    const backend = await connected;
    const answer = await backend.call("Reset", { type: two ? "OnIdle" : "Soft" });
    check("strict: calls pass down", answer.status === "Accepted");
    const place = two ? { evseId: 1 } : { connectorId: 1 };
    const composite = await backend.call("GetCompositeSchedule", { ...place, duration: 600, chargingRateUnit: "A" });
    check("strict: our composite by the schema", composite.status === "Accepted");
    if (two) {
        await station.call("TransactionEvent", {
            eventType: "Started", timestamp: new Date().toISOString(), triggerReason: "CablePluggedIn", seqNo: 0,
            transactionInfo: { transactionId: "t" },
        });
        check("strict: transaction", heard.some(([method]) => method === "TransactionEvent"));
    } else {
        await station.call("StatusNotification", { connectorId: 1, errorCode: "NoError", status: "Available" });
        check("strict: status", heard.some(([method]) => method === "StatusNotification"));
    }
    await station.close();
    await server.close({ force: true });
}

main().then(() => process.exit(0), (error) => {
    check(`${error.stack}`.split("\n").slice(0, 3).join(" "), false);
    process.exit(1);
});
