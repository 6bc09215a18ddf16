// A program that uses the Node SDK: it answers each line on its input with what the SDK finds. An SDK
// keeps the token that it has read; a new one reads the file again.
const { getSdk } = require('balena-sdk');
const readline = require('readline');

const make = () => getSdk({ apiUrl: process.env.API_URL, dataDirectory: process.env.BALENARC_DATA_DIRECTORY });
let sdk = make();

async function answer(line) {
  if (line === 'again') {
    sdk = make();
  }
  try {
    if (line === 'fleets') { // a question that a guest gets an answer to as well
      return 'sees ' + (await sdk.models.application.getAll()).length + ' fleets';
    }
    const keys = await sdk.models.apiKey.getAll(); // a question that only a live token gets answered
    return 'sees ' + keys.length;
  } catch (e) {
    return 'refused ' + (e.statusCode || e.code || e.message);
  }
}

readline.createInterface({ input: process.stdin }).on('line', async (line) => console.log(await answer(line)));
