// A payment application in small: the SSP host library `encrypted-smiley-secure-protocol` on one port.
// node host.js PORT: every reply and every event becomes one line of JSON; each line on stdin is a command.
'use strict';

const real = require('serialport');

// The library was written for serialport 9, whose constructor took the path as its first argument.
require.cache[require.resolve('serialport')].exports = class extends real.SerialPort {
  constructor(path, options) {
    super({ path, ...options });
  }
};
const Host = require('encrypted-smiley-secure-protocol');

const host = new Host({ id: 0, timeout: 500 });
const say = (name, value) => process.stdout.write(JSON.stringify({ [name]: value }) + '\n');
const emit = host.emit.bind(host);
host.emit = (name, info) => {
  if (info && info.name) say('event', info);
  return emit(name, info);
};

async function ask(line) {
  const [name, ...words] = line.trim().split(' ');
  if (name === 'ENABLE') return say(name, await host.enable());
  if (name === 'DISABLE') return say(name, await host.disable());
  const options = words.length ? JSON.parse(words.join(' ')) : undefined;
  return say(name, await host.command(name, options));
}

async function main() {
  await host.open(process.argv[2]);
  say('open', true);
  const lines = require('readline').createInterface({ input: process.stdin });
  let before = Promise.resolve();
  lines.on('line', line => { before = before.then(() => ask(line)); });
  lines.on('close', () => before.then(() => process.exit(0)));
}

main();
