import { readArguments, runIdIn } from './arguments.ts'
import { connectToApi } from './connection.ts'
import { printReport } from './print-report.ts'
import type { Outputs } from './screen.ts'

const USAGE = `Usage: purser report RUN_ID [--json]

Prints what a run cost: each call with the routes tried, retries and fallbacks, the balance that paid, tokens, what was
held, captured and released, and the envelope's closing balance.`

export async function report(args: readonly string[], { out }: Outputs): Promise<number> {
  const { values, positionals } = readArguments(args, {
    options: { json: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
    usage: USAGE,
    positionals: 1,
  })
  if (values.help) {
    out.line(USAGE)
    return 0
  }
  const runId = runIdIn(positionals, USAGE)
  const api = await connectToApi(process.env)
  const found = await api.get('/runs/{id}/report', { params: { path: { id: runId } } })
  if (values.json) {
    out.line(JSON.stringify(found, undefined, 2))
    return 0
  }
  const run = await api.get('/runs/{id}', { params: { path: { id: found.runId } } })
  out.line(`Run ${found.runId}, ${found.state}${run.detail === null ? '' : `: ${run.detail}`}`)
  out.line(`Agent ${found.agent}, catalog model ${found.model}\n`)
  printReport(out, found)
  return 0
}
