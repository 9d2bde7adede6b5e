import type { ScheduleView } from '#contracts/api-schedule.ts'
import { readArguments, UsageError } from './arguments.ts'
import { connectToApi } from './connection.ts'
import { readJson } from './json-file.ts'
import { printTable } from './print-table.ts'
import type { Outputs } from './screen.ts'
import { NOTHING } from './text-table.ts'

const USAGE = `Usage: purser schedules [list] [--json]
       purser schedules add FILE
       purser schedules pause|resume|remove|show ID

Starts runs by the clock. FILE is JSON: name; every (seconds, 60 or more) or cron (five fields,
in timeZone); run, as for POST /api/v1/runs; and monthlyCap, if its runs of one month may take no more than that. The key
that adds a schedule pays for its runs. show prints what became of its times. Needs the key of a project.`

const COMMANDS = ['list', 'add', 'pause', 'resume', 'remove', 'show'] as const

export async function schedules(args: readonly string[], outputs: Outputs): Promise<number> {
  const { values, positionals } = readArguments(args, {
    options: { json: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
    usage: USAGE,
    positionals: 2,
  })
  if (values.help) {
    outputs.out.line(USAGE)
    return 0
  }
  const [name = 'list', what] = positionals
  const command = COMMANDS.find((each) => each === name)
  if (!command) throw new UsageError(`"${name}" is not expected here.`, USAGE)
  if (command === 'list') return list(outputs, values.json === true)
  if (what === undefined) throw new UsageError(command === 'add' ? 'say which file.' : 'say which schedule.', USAGE)
  if (command === 'add') return add(outputs, what)
  return command === 'show' ? show(outputs, what) : change(outputs, command, what)
}

async function list({ out }: Outputs, isJson: boolean): Promise<number> {
  const api = await connectToApi(process.env)
  const found = await api.get('/schedules')
  if (isJson) {
    out.line(JSON.stringify(found, undefined, 2))
    return 0
  }
  const columns = [{ title: 'id' }, { title: 'name' }, { title: 'when' }, { title: 'state' }, { title: 'cap a month' }]
  printTable(out, columns, found.schedules.map(rowOf))
  return 0
}

/** A schedule as cells of the table. */
export function rowOf({ id, name, state, stateReason, monthlyCap, ...when }: ScheduleView): string[] {
  const caps = monthlyCap?.map(({ balanceClass, amount }) => `${amount.amount} ${amount.currency} ${balanceClass}`)
  const why = stateReason === null ? '' : ` (${stateReason.replaceAll('_', ' ')})`
  return [id, name, timesOf(when), `${state}${why}`, caps?.join(', ') ?? NOTHING]
}

function timesOf({ every, cron, timeZone }: Pick<ScheduleView, 'every' | 'cron' | 'timeZone'>): string {
  return every === null ? `${cron} ${timeZone}` : `every ${every} s`
}

async function add({ out }: Outputs, file: string): Promise<number> {
  const body = await readJson(file)
  const api = await connectToApi(process.env)
  const schedule = await api.postAsItIs('/schedules', { body })
  out.line(`${schedule.name} ${schedule.id}: ${timesOf(schedule)}`)
  return 0
}

async function change({ out }: Outputs, command: 'pause' | 'resume' | 'remove', id: string): Promise<number> {
  const api = await connectToApi(process.env)
  const params = { path: { id } }
  if (command === 'remove') {
    await api.delete('/schedules/{id}', { params })
    out.line('It is removed. Its runs go on.')
    return 0
  }
  const state = command === 'pause' ? 'paused' : 'active'
  const schedule = await api.patch('/schedules/{id}', { params, body: { state } })
  out.line(`${schedule.name} is ${schedule.state}.`)
  return 0
}

async function show({ out }: Outputs, id: string): Promise<number> {
  const api = await connectToApi(process.env)
  const { firings } = await api.get('/schedules/{id}/firings', { params: { path: { id } } })
  const rows = firings.map(({ scheduledFor, runId, skipped, detail }) => [
    scheduledFor,
    runId ?? `skipped: ${skipped ?? NOTHING}`,
    detail ?? '',
  ])
  printTable(out, [{ title: 'time' }, { title: 'run' }, { title: 'why' }], rows)
  return 0
}
