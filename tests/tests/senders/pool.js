// Mails one after the other through a pool of one connection, some of them refused; inside of TLS where a second argument
// asks for that.
const nodemailer = require('nodemailer');

const MAILS = [
  ['alice', 'one'],
  ['no-mail', 'one'],
  ['alice', 'no-rcpt'],
  ['alice', 'one', 'no-rcpt'],
  ['alice', 'no-data'],
  ['alice', 'no-message'],
  ['alice', 'one'],
];

async function main(host, tls) {
  const pool = nodemailer.createTransport(
    { pool: true, maxConnections: 1, host, port: 25, name: 'client.example',
      ignoreTLS: !tls, requireTLS: !!tls, tls: { rejectUnauthorized: false } });
  for (const [sender, ...recipients] of MAILS) {
    const mail = { from: `${sender}@client.example`, to: recipients.map((name) => `${name}@test.example`), text: 'hello' };
    await pool.sendMail(mail).catch((failure) => console.log(failure.message));
  }
  pool.close();
}

main(process.argv[2], process.argv[3]);
