import { extname } from 'node:path'
import { readArguments, UsageError } from './arguments.ts'
import { connectToApi } from './connection.ts'
import { printDownload, saveDownload } from './download.ts'
import type { Outputs } from './screen.ts'
import { findLocalAccount } from './up-account.ts'

const USAGE = `Usage: purser statement YYYY-MM [--wallet ID] [--time-zone ZONE] [--format csv|json] [--output FILE]

Writes a wallet's statement of a calendar month: opening balance, every movement, closing balance, debts, and for each
envelope what it got, gave and spent, by model, route and provider. The month begins and ends in the time zone, by default
UTC. Without a wallet it is that of the running local stack. Without --output it goes to standard output; --format is
that of the file's ending, else CSV.`

export async function statement(args: readonly string[], { out, err }: Outputs): Promise<number> {
  const { values, positionals } = readArguments(args, {
    options: {
      wallet: { type: 'string' },
      'time-zone': { type: 'string', default: 'UTC' },
      format: { type: 'string' },
      output: { type: 'string', short: 'o' },
      help: { type: 'boolean', short: 'h' },
    },
    usage: USAGE,
    positionals: 1,
  })
  if (values.help) {
    out.line(USAGE)
    return 0
  }
  const [month] = positionals
  if (month === undefined) throw new UsageError('the month is missing, such as 2026-11.', USAGE)
  const format = formatOf(values.format, values.output)
  const api = await connectToApi(process.env)
  const walletId = values.wallet ?? (await localWallet())
  const query = new URLSearchParams({ format, timeZone: values['time-zone'] }).toString()
  const path = `/wallets/${encodeURIComponent(walletId)}/statements/${encodeURIComponent(month)}?${query}`
  if (values.output === undefined) await printDownload(api, path)
  else {
    await saveDownload(api, path, values.output)
    err.line(`Written to ${values.output}.`)
  }
  return 0
}

function formatOf(asked: string | undefined, output: string | undefined): 'csv' | 'json' {
  const format = asked ?? (output !== undefined && extname(output).toLowerCase() === '.json' ? 'json' : 'csv')
  if (format === 'csv' || format === 'json') return format
  throw new UsageError(`there is no format "${format}": it is csv or json.`, USAGE)
}

async function localWallet(): Promise<string> {
  const account = process.env['PURSER_URL'] === undefined ? await findLocalAccount(process.env) : undefined
  if (!account) throw new UsageError('say which wallet with --wallet.', USAGE)
  return account.walletId
}
