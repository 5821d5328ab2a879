"""Gets URLs one after the other over one connection, with Qt's network library."""
import sys

from PyQt5.QtCore import QCoreApplication, QEventLoop, QUrl
from PyQt5.QtNetwork import QNetworkAccessManager, QNetworkRequest

app = QCoreApplication(sys.argv)
manager = QNetworkAccessManager()
for url in sys.argv[1:]:
    answer = manager.get(QNetworkRequest(QUrl(url)))
    answer.ignoreSslErrors()
    loop = QEventLoop()
    answer.finished.connect(loop.quit)
    loop.exec()
    answer.readAll()
