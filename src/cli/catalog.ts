import { checkCatalog, type CatalogFault } from '#contracts/catalog-check.ts'
import { readArguments, UsageError } from './arguments.ts'
import { connectToApi } from './connection.ts'
import { readJson } from './json-file.ts'
import type { Outputs, Screen } from './screen.ts'

const USAGE = `Usage: purser catalog check FILE
       purser catalog import FILE
       purser catalog show [VERSION]

check says everything that is wrong with a catalog (JSON), and sends nothing. import puts it in force: the same document
again is the same version. show prints the catalog in force, or an older version. import and show need an operator key.`

const EXIT_INVALID = 1

export async function catalog(args: readonly string[], outputs: Outputs): Promise<number> {
  const { values, positionals } = readArguments(args, {
    options: { help: { type: 'boolean', short: 'h' } },
    usage: USAGE,
    positionals: 2,
  })
  if (values.help) {
    outputs.out.line(USAGE)
    return 0
  }
  const [command, name] = positionals
  switch (command) {
    case 'check':
      return check(outputs, fileOf(name))
    case 'import':
      return put(outputs, fileOf(name))
    case 'show':
      return show(outputs, name)
    case undefined:
    default:
      throw new UsageError('say what to do: check, import or show.', USAGE)
  }
}

function fileOf(name: string | undefined): string {
  if (name === undefined) throw new UsageError('the FILE is missing.', USAGE)
  return name
}

async function check({ out, err }: Outputs, file: string): Promise<number> {
  const checked = checkCatalog(await readJson(file))
  if (!checked.ok) {
    err.line(`${file} is no catalog:`)
    listFaults(err, checked.problems)
    return EXIT_INVALID
  }
  const { models, prices } = checked.catalog
  out.line(`${file} is a catalog with ${models.length} models and ${prices.length} prices.`)
  listFaults(out, checked.warnings)
  return 0
}

async function put({ out }: Outputs, file: string): Promise<number> {
  const document = await readJson(file)
  const api = await connectToApi(process.env)
  const { version, warnings } = await api.putAsItIs('/catalog', { body: document })
  out.line(`Catalog version ${version} is in force.`)
  listFaults(out, warnings)
  return 0
}

async function show({ out }: Outputs, version: string | undefined): Promise<number> {
  if (version !== undefined && !/^[1-9]\d{0,9}$/.test(version)) {
    throw new UsageError(`"${version}" is no version: give its number.`, USAGE)
  }
  const api = await connectToApi(process.env)
  const found = await (version === undefined
    ? api.get('/catalog')
    : api.get('/catalog/versions/{version}', { params: { path: { version: Number(version) } } }))
  out.line(JSON.stringify(found.catalog, undefined, 2))
  return 0
}

function listFaults(screen: Screen, faults: readonly CatalogFault[]): void {
  for (const { path, message } of faults) screen.line(`  ${path === '' ? message : `${path}: ${message}`}`)
}
