import type { ProviderView } from '#contracts/api-provider.ts'
import { MAX_TOKENS_FIELDS, PROVIDER_KINDS } from '#contracts/names.ts'
import { text } from 'node:stream/consumers'
import { readArguments, UsageError } from './arguments.ts'
import { connectToApi } from './connection.ts'
import { printTable } from './print-table.ts'
import type { Outputs } from './screen.ts'
import { NOTHING } from './text-table.ts'

const USAGE = `Usage: purser providers [list] [--json]
       purser providers add NAME --url URL (--key-env VARIABLE | --key-stdin) [OPTIONS]
       purser providers change NAME [--url URL] [--key-env VARIABLE | --key-stdin] [OPTIONS]
       purser providers remove NAME

  --url URL                  http or https; with change only together with a key
  --key-env VARIABLE         the environment variable that has the provider's key
  --key-stdin                the key comes on standard input
  --kind KIND                ${PROVIDER_KINDS.join(', ')}
  --max-tokens-field FIELD   ${MAX_TOKENS_FIELDS.join(' or ')}, of the kinds openai and openrouter
  --prompt-cache yes|no      whether prompts are written to the cache, of the kind anthropic

Where models are asked. All processes know a change within two seconds. A key is no argument: others of this machine could
read it. Needs an operator key.`

const COMMANDS = ['list', 'add', 'change', 'remove'] as const
const OPTIONS = {
  url: { type: 'string' },
  'key-env': { type: 'string' },
  'key-stdin': { type: 'boolean' },
  kind: { type: 'string' },
  'max-tokens-field': { type: 'string' },
  'prompt-cache': { type: 'string' },
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const

/** What stands behind the name of a command. */
type Values = ReturnType<typeof readProviderArguments>['values']

export async function providers(args: readonly string[], outputs: Outputs): Promise<number> {
  const { values, positionals } = readProviderArguments(args)
  if (values.help) {
    outputs.out.line(USAGE)
    return 0
  }
  const [word = 'list', name] = positionals
  const command = COMMANDS.find((each) => each === word)
  if (!command) throw new UsageError(`"${word}" is not expected here.`, USAGE)
  if (command === 'list') return list(outputs, values.json === true)
  if (name === undefined) throw new UsageError('say which provider: NAME.', USAGE)
  if (command === 'remove') return remove(outputs, name)
  return command === 'add' ? add(outputs, name, values) : change(outputs, name, values)
}

function readProviderArguments(args: readonly string[]) {
  return readArguments(args, { options: OPTIONS, usage: USAGE, positionals: 2 })
}

async function list({ out }: Outputs, isJson: boolean): Promise<number> {
  const api = await connectToApi(process.env)
  const found = await api.get('/providers', { params: { query: { limit: 200 } } })
  if (isJson) {
    out.line(JSON.stringify(found, undefined, 2))
    return 0
  }
  const columns = ['name', 'kind', 'address', 'key', 'key since', 'source'].map((title) => ({ title }))
  printTable(out, columns, found.providers.map(rowOf))
  return 0
}

/** A provider as cells of the table. */
export function rowOf({ name, kind, baseUrl, keyHint, keyChangedAt, source }: ProviderView): string[] {
  return [name, kind, baseUrl, keyHint, keyChangedAt ?? NOTHING, source]
}

async function add({ out }: Outputs, name: string, values: Values): Promise<number> {
  const settings = settingsOf(values)
  if (settings.baseUrl === undefined) throw new UsageError('--url is missing.', USAGE)
  const apiKey = await keyOf(values)
  if (apiKey === undefined) throw new UsageError('the key is missing: --key-env VARIABLE or --key-stdin.', USAGE)
  const api = await connectToApi(process.env)
  const added = await api.postAsItIs('/providers', { body: { name, ...settings, apiKey } })
  out.line(`${added.name} is asked at ${added.baseUrl} with the key ${added.keyHint}.`)
  return 0
}

async function change({ out }: Outputs, name: string, values: Values): Promise<number> {
  const apiKey = await keyOf(values)
  const body = { ...settingsOf(values), ...(apiKey !== undefined && { apiKey }) }
  if (Object.keys(body).length === 0) throw new UsageError('say what to change.', USAGE)
  const api = await connectToApi(process.env)
  const changed = await api.patchAsItIs('/providers/{name}', { path: { name }, body })
  out.line(`${changed.name} is asked at ${changed.baseUrl} with the key ${changed.keyHint}.`)
  return 0
}

async function remove({ out }: Outputs, name: string): Promise<number> {
  const api = await connectToApi(process.env)
  await api.delete('/providers/{name}', { params: { path: { name } } })
  out.line(`${name} is removed, and its key with it.`)
  return 0
}

function settingsOf(values: Values) {
  const { url: baseUrl, kind } = values
  const maxTokensField = values['max-tokens-field']
  const promptCache = values['prompt-cache']
  if (promptCache !== undefined && promptCache !== 'yes' && promptCache !== 'no') {
    throw new UsageError('--prompt-cache is yes or no.', USAGE)
  }
  return {
    ...(baseUrl !== undefined && { baseUrl }),
    ...(kind !== undefined && { kind }),
    ...(maxTokensField !== undefined && { maxTokensField }),
    ...(promptCache !== undefined && { promptCache: promptCache === 'yes' }),
  }
}

/** Undefined when none is given. */
async function keyOf(values: Values): Promise<string | undefined> {
  const variable = values['key-env']
  if (values['key-stdin'] && variable !== undefined) {
    throw new UsageError('give either --key-env or --key-stdin.', USAGE)
  }
  if (variable !== undefined) {
    const key = process.env[variable]
    if (!key) throw new UsageError(`the environment has no ${variable}.`, USAGE)
    return key
  }
  if (!values['key-stdin']) return undefined
  const key = (await text(process.stdin)).trim()
  if (key === '') throw new UsageError('no key came on standard input.', USAGE)
  return key
}
