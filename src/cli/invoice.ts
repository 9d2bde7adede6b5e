import type { Schemas } from '#client/purser-client.ts'
import { readFile } from 'node:fs/promises'
import { readArguments, UsageError } from './arguments.ts'
import { connectToApi } from './connection.ts'
import type { Outputs } from './screen.ts'
import { formatTable, NOTHING } from './text-table.ts'

const USAGE = `Usage: purser invoice FILE --provider NAME --from TIME --to TIME [--json]

Compares a provider's invoice (CSV) with what was booked for its requests in that time. The first line of the file names
its columns: request_id (the provider's, or CALL_ID:ATTEMPT), model, amount, currency and, if it is known, tokens. Books
nothing; ends with 1 when something differs. Needs an operator key.`

const DIFFERS = 1

export async function invoice(args: readonly string[], { out }: Outputs): Promise<number> {
  const { values, positionals } = readArguments(args, {
    options: {
      provider: { type: 'string' },
      from: { type: 'string' },
      to: { type: 'string' },
      json: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
    usage: USAGE,
    positionals: 1,
  })
  if (values.help) {
    out.line(USAGE)
    return 0
  }
  const [path] = positionals
  if (path === undefined) throw new UsageError('the file is missing.', USAGE)
  const { provider, from, to } = values
  if (provider === undefined || from === undefined || to === undefined)
    throw new UsageError('say of which --provider it is, --from when and --to when.', USAGE)
  const csv = await readFile(path, 'utf8')
  const api = await connectToApi(process.env)
  const body = await api.post('/invoices', { body: { provider, from, to, csv } })
  if (values.json) out.line(JSON.stringify(body, undefined, 2))
  else for (const line of linesOf(body)) out.line(line)
  return body.differences.length === 0 ? 0 : DIFFERS
}

function linesOf({ knownSince, counts, totals, differences }: Schemas['InvoiceComparison']): readonly string[] {
  const known = knownSince === null ? [] : [`The same invoice was sent before, at ${knownSince}.`, '']
  const table = formatTable(
    [
      { title: 'line', align: 'right' },
      { title: 'status' },
      { title: 'request' },
      { title: 'model' },
      { title: 'invoiced', align: 'decimal' },
      { title: 'booked', align: 'decimal' },
      { title: 'currency' },
    ],
    differences.map((each) => [
      each.line?.toString() ?? NOTHING,
      each.status.replaceAll('_', ' '),
      each.callId === null ? (each.requestId ?? NOTHING) : `${each.callId}:${each.attempt}`,
      each.invoicedModel || (each.bookedModel ?? NOTHING),
      each.invoiced?.amount ?? NOTHING,
      each.booked?.amount ?? NOTHING,
      [...new Set([each.invoiced?.currency, each.booked?.currency])].filter((code) => code !== undefined).join(' / '),
    ]),
  )
  const sums = totals.map(
    ({ invoiced, booked, difference }) =>
      `${invoiced.currency}: ${invoiced.amount} invoiced, ${booked.amount} booked, difference ${difference.amount}`,
  )
  const counted = Object.entries(counts).map(([status, count]) => `${count} ${status.replaceAll('_', ' ')}`)
  return [...known, ...(differences.length > 0 ? [...table, ''] : []), ...sums, `${counted.join(', ')}.`]
}
