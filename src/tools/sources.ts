import { createHash } from 'node:crypto'
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { SourceDocument } from '#contracts/corpus.ts'
import { type DocumentedSymbol, extractTsdoc, toMarkdown } from './tsdoc.ts'

/** Larger than any documentation page seen; what is larger is data. */
const MAX_FILE_BYTES = 512 * 1024
const MAX_FILES = 5_000
const MAX_TOTAL_BYTES = 40 * 1024 * 1024
/** The wire's limit for a path (contracts/corpus.ts). */
const MAX_SOURCE_LENGTH = 300
/** So that no package fills the corpus: the largest hand-written set seen is Fastify's, with 0.7 MB. */
const MAX_PACKAGE_MARKDOWN = 1024 * 1024
/** Kysely's comments fit (0.57 MB); generated clients with megabytes of them do not. */
const MAX_PACKAGE_TSDOC = 600 * 1024
/** Deeper than any real folder; a loop would end here. */
const MAX_DEPTH = 20

const MARKDOWN = /\.(?:md|mdx)$/i
const PROSE = /\.(?:md|mdx|txt)$/i
const DECLARATIONS = /\.d\.ts$/
const UNWANTED_FILE =
  /^(?:(?:change[-_]?logs?|licen[sc]es?|copying|third[-_]?party).*|(?:changes|history|releases?|notice|security|code[-_]of[-_]conduct)\.\w+)$/i
const FIXTURES = new Set(['fixtures', '__fixtures__', 'testdata', 'test-fixtures', '__tests__', 'node_modules'])
const PACKAGE_TESTS = new Set([...FIXTURES, 'test', 'tests'])

export type SkipReason = 'too_large' | 'duplicate' | 'over_the_limit' | 'name_too_long' | 'not_text'

export interface Collected {
  readonly documents: readonly SourceDocument[]
  /** How many files were left out, by reason. Files that are no documentation by name are not counted. */
  readonly skipped: Readonly<Record<SkipReason, number>>
}

/**
 * Every *.md, *.mdx and *.txt below a folder, with its path from there as source. Change logs, licences, security and
 * conduct pages, test fixtures, hidden folders, node_modules and links are left out, and so are identical files.
 * @throws when the folder cannot be read
 */
export async function collectFolder(folder: string): Promise<Collected> {
  const collection = new Collection()
  for (const path of await listFiles(folder, { wanted: PROSE, skippedFolders: FIXTURES })) {
    await collection.addFile(folder, path)
  }
  return collection
}

/**
 * The documentation of everything installed in a node_modules folder: the Markdown of each package, and the comments of
 * its declaration files. Sources begin with the package's name.
 * @throws when the folder cannot be read
 */
export async function collectInstalled(nodeModulesDir: string): Promise<Collected> {
  const collection = new Collection()
  const packages = await listPackages(nodeModulesDir)
  for (const name of packages) await addMarkdown(collection, nodeModulesDir, name)
  for (const name of packages) await addDeclarations(collection, nodeModulesDir, name)
  return collection
}

async function addMarkdown(collection: Collection, root: string, name: string): Promise<void> {
  const paths = await listFiles(join(root, name), { wanted: MARKDOWN, skippedFolders: PACKAGE_TESTS })
  let room = MAX_PACKAGE_MARKDOWN
  for (const path of paths) {
    if (room <= 0) collection.leaveOut('over_the_limit')
    else room -= await collection.addFile(root, `${name}/${path}`, /^readme\.\w+$/i.test(path) ? name : undefined)
  }
}

async function addDeclarations(collection: Collection, root: string, name: string): Promise<void> {
  const paths = await listFiles(join(root, name), { wanted: DECLARATIONS, skippedFolders: PACKAGE_TESTS })
  let room = MAX_PACKAGE_TSDOC
  const known = new Set<string>()
  for (const path of paths) {
    if (room <= 0) return
    const source = `${name}/${path}`
    const text = await readText(join(root, source))
    if (text === undefined) {
      collection.leaveOut('too_large')
      continue
    }
    const document = toMarkdown(newSymbols(text, known)).slice(0, room)
    if (document === '') continue
    room -= collection.add({ source, title: `${name} ${path.replace(DECLARATIONS, '')}`, text: document })
  }
}

/** Packages ship the same declarations several times, for each module format and compiler. */
function newSymbols(text: string, known: Set<string>): readonly DocumentedSymbol[] {
  return extractTsdoc(text).filter((symbol) => {
    const key = `${symbol.name}\n${symbol.text}`
    return !known.has(key) && known.add(key)
  })
}

/** Packages by name, nested ones (`a/node_modules/b`) after those of the top. */
async function listPackages(root: string, prefix = '', depth = 0): Promise<readonly string[]> {
  if (depth > MAX_DEPTH) return []
  const names: string[] = []
  for (const folder of await listFolders(join(root, prefix))) {
    const inside = folder.startsWith('@') ? await listFolders(join(root, prefix, folder)) : undefined
    names.push(...(inside?.map((name) => `${prefix}${folder}/${name}`) ?? [`${prefix}${folder}`]))
  }
  const nested: string[] = []
  for (const name of names) {
    const hasOwn = (await listFolders(join(root, name))).includes('node_modules')
    if (hasOwn) nested.push(...(await listPackages(root, `${name}/node_modules/`, depth + 1)))
  }
  return [...names, ...nested]
}

async function listFolders(folder: string): Promise<readonly string[]> {
  const entries = await readdir(folder, { withFileTypes: true })
  const folders = entries.filter((entry) => entry.isDirectory() && !entry.name.startsWith('.'))
  return folders.map((entry) => entry.name).toSorted(byCodeUnits)
}

interface Listing {
  readonly wanted: RegExp
  readonly skippedFolders: ReadonlySet<string>
}

/** Paths from the folder, those nearest to it first: a limit then cuts the least important ones. */
async function listFiles(folder: string, listing: Listing): Promise<readonly string[]> {
  const found: string[] = []
  let level = ['']
  for (let depth = 0; depth < MAX_DEPTH && level.length > 0; depth += 1) {
    const below: string[] = []
    for (const path of level) {
      const entries = await readdir(join(folder, path), { withFileTypes: true })
      for (const entry of entries.toSorted((a, b) => byCodeUnits(a.name, b.name))) {
        if (entry.isFile() && listing.wanted.test(entry.name) && !UNWANTED_FILE.test(entry.name)) {
          found.push(path + entry.name)
        }
        const isWanted = !entry.name.startsWith('.') && !listing.skippedFolders.has(entry.name)
        if (entry.isDirectory() && isWanted) below.push(`${path}${entry.name}/`)
      }
    }
    level = below
  }
  return found
}

/** The same order on every machine, whatever its language. */
function byCodeUnits(left: string, right: string): number {
  return left < right ? -1 : left > right ? 1 : 0
}

async function readText(path: string): Promise<string | undefined> {
  const { size } = await stat(path)
  return size > MAX_FILE_BYTES ? undefined : readFile(path, 'utf8')
}

class Collection implements Collected {
  readonly documents: SourceDocument[] = []
  readonly skipped: Record<SkipReason, number> = {
    too_large: 0,
    duplicate: 0,
    over_the_limit: 0,
    name_too_long: 0,
    not_text: 0,
  }
  readonly #digests = new Set<string>()
  #bytes = 0

  leaveOut(reason: SkipReason): number {
    this.skipped[reason] += 1
    return 0
  }

  /** The number of characters added. */
  async addFile(root: string, path: string, title?: string): Promise<number> {
    const text = await readText(join(root, path))
    if (text === undefined) return this.leaveOut('too_large')
    return this.add({ source: path, text, ...(title === undefined ? {} : { title }) })
  }

  /** The number of characters added. */
  add(document: SourceDocument): number {
    if (document.source.length > MAX_SOURCE_LENGTH) return this.leaveOut('name_too_long')
    if (document.text.includes('\0')) return this.leaveOut('not_text')
    const bytes = Buffer.byteLength(document.text)
    if (this.documents.length >= MAX_FILES || this.#bytes + bytes > MAX_TOTAL_BYTES)
      return this.leaveOut('over_the_limit')
    const digest = createHash('sha256').update(document.text).digest('base64')
    if (this.#digests.has(digest)) return this.leaveOut('duplicate')
    this.#digests.add(digest)
    this.#bytes += bytes
    this.documents.push(document)
    return document.text.length
  }
}
