/** What a person is told whose clients are not there. */
export const INSTALL = `The clients are not installed. Install them:
  npm ci --prefix test/clients
  python3 -m venv test/clients/.venv && test/clients/.venv/bin/pip install -r test/clients/requirements.txt`
