import { MAX_LISTED, type PriceComparison } from '#contracts/api-price.ts'
import { readFile } from 'node:fs/promises'
import { readArguments, UsageError } from './arguments.ts'
import { connectToApi } from './connection.ts'
import { readPriceFile, type PriceFile } from './price-file.ts'
import type { Outputs } from './screen.ts'

const USAGE = `Usage: purser prices diff FILE [OPTIONS]
       purser prices import FILE [OPTIONS]

Compares a price list with the price book, or adds what differs to it. FILE is LiteLLM's public price map
(model_prices_and_context_window.json) or models.dev's api.json: which one it is, is seen from its shape. Nothing that is
booked, or held, is priced again.

  --provider NAME[=OURS]  only this provider of the list, under our name for it; may be repeated
  --only MODEL            only this upstream model; may be repeated
  --effective-at TIME     from then on, such as 2027-01-01T00:00:00Z; else at once
  --free                  also what costs nothing by the list
  --json                  the comparison as JSON

Needs an operator key.`

export async function prices(args: readonly string[], { out }: Outputs): Promise<number> {
  const { values, positionals } = readArguments(args, {
    options: {
      provider: { type: 'string', multiple: true },
      only: { type: 'string', multiple: true },
      'effective-at': { type: 'string' },
      free: { type: 'boolean' },
      json: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
    usage: USAGE,
    positionals: 2,
  })
  if (values.help) {
    out.line(USAGE)
    return 0
  }
  const [verb, path] = positionals
  if (verb !== 'diff' && verb !== 'import') throw new UsageError('say what to do: diff or import.', USAGE)
  if (path === undefined) throw new UsageError('the file is missing.', USAGE)
  const file = readPriceFile(await readFile(path, 'utf8'), {
    providers: new Map((values.provider ?? []).map(namesOf)),
    only: new Set(values.only),
    free: values.free ? 'take' : 'skip',
    effectiveAt: values['effective-at'],
  })
  const comparison = await send(file, verb === 'diff' ? '/prices/comparison' : '/prices')
  if (values.json) out.line(JSON.stringify({ ...comparison, skipped: file.skipped }, undefined, 2))
  else for (const line of linesOf(file, comparison)) out.line(line)
  return 0
}

function namesOf(text: string): readonly [theirs: string, ours: string] {
  const [theirs = '', ours = theirs] = text.split('=')
  if (theirs === '' || ours === '') throw new UsageError(`"${text}" names no provider: give NAME or NAME=OURS.`, USAGE)
  return [theirs, ours]
}

/** A long list goes in parts. */
async function send(file: PriceFile, path: '/prices' | '/prices/comparison'): Promise<PriceComparison> {
  const api = await connectToApi(process.env)
  const parts: PriceComparison[] = []
  for (let start = 0; start < file.prices.length; start += MAX_LISTED) {
    const part = file.prices.slice(start, start + MAX_LISTED)
    parts.push(await api.postAsItIs(path, { body: { prices: part } }))
  }
  return {
    added: parts.flatMap(({ added }) => added),
    changed: parts.flatMap(({ changed }) => changed),
    unchanged: parts.reduce((sum, { unchanged }) => sum + unchanged, 0),
  }
}

function linesOf(file: PriceFile, { added, changed, unchanged }: PriceComparison): readonly string[] {
  return [
    ...added.map(
      ({ changes, ...key }) =>
        `new      ${nameOf(key)}: ${changes.map(({ component, to }) => `${component} ${to}`).join(', ')}`,
    ),
    ...changed.map(
      ({ changes, ...key }) =>
        `changed  ${nameOf(key)}: ${changes.map(({ component, from, to }) => `${component} ${from ?? 'none'} -> ${to ?? 'none'}`).join(', ')}`,
    ),
    ...file.skipped.map(({ name, reason }) => `skipped  ${name}: ${reason}`),
    `${added.length} new, ${changed.length} changed, ${unchanged} unchanged, ${file.skipped.length} skipped.`,
  ]
}

function nameOf(price: Omit<PriceComparison['added'][number], 'changes'>): string {
  const { provider, upstreamModel, currency, effectiveAt } = price
  return `${provider} ${upstreamModel} (${currency}${effectiveAt === null ? '' : ` from ${effectiveAt}`})`
}
