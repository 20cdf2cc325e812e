const http = require("http");
const greeting = require("greeting");

http
  .createServer((request, response) => {
    console.log(`${request.method} ${request.url}`);
    response.end(`${greeting("quay")}\n`);
  })
  .listen(80, () => console.log("listening on 80"));

process.on("SIGTERM", () => process.exit(0));
