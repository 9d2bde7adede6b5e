import type { Schemas } from '#client/purser-client.ts'
import { readArguments } from './arguments.ts'
import { connectToApi } from './connection.ts'
import type { Outputs } from './screen.ts'
import { formatTable, NOTHING } from './text-table.ts'

const USAGE = `Usage: purser margins [--from TIME] [--to TIME] [--project ID] [--by GROUPS] [--json]

Prints what was sold in a period, what providers bill for it, and what is left of it. --by: some of project, model, route
and month, with commas between them; by default route. Times are such as 2026-11-01T00:00:00Z; by default it is this month
in UTC, up to now. Needs an operator key.`

export async function margins(args: readonly string[], { out }: Outputs): Promise<number> {
  const { values } = readArguments(args, {
    options: {
      from: { type: 'string' },
      to: { type: 'string' },
      project: { type: 'string' },
      by: { type: 'string' },
      json: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
    usage: USAGE,
  })
  if (values.help) {
    out.line(USAGE)
    return 0
  }
  const { from, to, project, by } = values
  const query = {
    ...(from !== undefined && { from }),
    ...(to !== undefined && { to }),
    ...(project !== undefined && { project }),
    ...(by !== undefined && { by }),
  }
  const api = await connectToApi(process.env)
  const found = await api.get('/margins', { params: { query } })
  if (values.json) out.line(JSON.stringify(found, undefined, 2))
  else for (const line of linesOf(found)) out.line(line)
  return 0
}

function linesOf({ from, to, by, margins: lines }: Schemas['Margins']): readonly string[] {
  const table = formatTable(
    [
      ...by.map((title) => ({ title })),
      { title: 'attempts', align: 'right' },
      { title: 'currency' },
      { title: 'sell', align: 'decimal' },
      { title: 'cost', align: 'decimal' },
      { title: 'margin', align: 'decimal' },
      { title: 'billed in' },
    ],
    lines.map((line) => [
      ...by.map((group) => (group === 'project' ? line.projectId : line[group]) ?? NOTHING),
      String(line.attempts),
      line.sell.currency,
      line.sell.amount,
      line.cost.amount,
      line.margin.amount,
      line.billed.map(({ amount, currency }) => `${amount} ${currency}`).join(', ') || line.sell.currency,
    ]),
  )
  return [`From ${from} to ${to}`, '', ...(lines.length === 0 ? ['Nothing was sold.'] : table)]
}
